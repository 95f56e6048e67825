"""What a job is: which pictures, which version of which model, and how they are cut into parts."""

import json
import reprlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

FORMAT_VERSION = 1
_WORDS: dict[object, str] = {str: "text", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True)
class Plan:
    """Two runs with equal plans write equal parts; only then may one resume the other.

    Attributes:
        listing_sha256: over paths and sizes of all pictures.
        picture_count: how many there are.
        model: its name.
        model_version: the concrete one that answers the whole job.
        part_size: pictures a part file.
        all_probabilities: whether every class's probability is kept.
        format_version: of the part files.
    """

    listing_sha256: str
    picture_count: int
    model: str
    model_version: str
    part_size: int
    all_probabilities: bool
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Chunk:
    """Pictures of one request: `start` to before `stop`, all in the same part."""

    part: int
    start: int
    stop: int
    ends_part: bool


def write_plan(plan: Plan) -> str:
    """The plan as JSON."""
    return json.dumps(asdict(plan), indent=2) + "\n"


def read_plan(text: str) -> Plan:
    """The plan that `write_plan` wrote.

    Raises:
        ValueError: it is not one.
    """
    document = json.loads(text)
    names = {field.name for field in fields(Plan)}
    if not isinstance(document, dict) or set(document) != names:
        raise ValueError(f"expected a JSON object with {', '.join(sorted(names))}")
    for field in fields(Plan):
        if type(document[field.name]) is not field.type:
            raise ValueError(f"{field.name} is {reprlib.repr(document[field.name])}; expected {_WORDS[field.type]}")
    if min(document["picture_count"], document["part_size"]) < 1:
        raise ValueError("picture_count and part_size are below 1")
    return Plan(**document)


def describe_difference(old: Plan, new: Plan) -> str:
    """What keeps one plan from resuming the other; empty if nothing does."""
    differences = []
    if old.listing_sha256 != new.listing_sha256:
        differences.append(f"other pictures ({old.picture_count} then, {new.picture_count} now)")
    for name, words in (
        ("model", "model"),
        ("model_version", "model version"),
        ("part_size", "part size"),
        ("all_probabilities", "choice of --all-probabilities"),
        ("format_version", "file format"),
    ):
        then, now = getattr(old, name), getattr(new, name)
        if then != now:
            differences.append(f"another {words} ({then} then, {now} now)")
    return ", ".join(differences)


def part_count(plan: Plan) -> int:
    """How many part files the finished job has."""
    return -(-plan.picture_count // plan.part_size)


def part_length(plan: Plan, part: int) -> int:
    """How many pictures a part of the finished job is about."""
    return min((part + 1) * plan.part_size, plan.picture_count) - part * plan.part_size


def chunks(plan: Plan, *, done_parts: set[int], batch_size: int) -> Iterator[Chunk]:
    """The requests still to be made, in order."""
    for part in range(part_count(plan)):
        if part in done_parts:
            continue
        stop = min((part + 1) * plan.part_size, plan.picture_count)
        for start in range(part * plan.part_size, stop, batch_size):
            end = min(start + batch_size, stop)
            yield Chunk(part, start, end, ends_part=end == stop)
