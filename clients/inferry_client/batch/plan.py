"""What a job is: which pictures, which version of which model, and how they are cut into parts."""

import hashlib
import json
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice

from inferry_client.batch.errors import JobError
from inferry_client.batch.priority import in_turns
from inferry_client.batch.records import Record

FORMAT_VERSION = 2
_COUNTS = ("picture_count", "first_part", "gone_count")
_WORDS: dict[object, str] = {str: "text", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True)
class Plan:
    """Two runs with equal plans write equal parts; only then may one resume the other.

    Attributes:
        listing_sha256: over ids and sizes of all pictures; see `Listing`.
        picture_count: how many there are.
        first_part: the number of the first part; those below it are of earlier runs, over other pictures.
        model: its name.
        model_version: the concrete one that answers the whole job.
        model_digest: of what it computes with, its labels and its preprocessing.
        part_size: pictures a part file.
        output: the format of part files.
        top_k: labels a picture.
        all_probabilities: whether every class's probability is kept.
        max_file_bytes: a picture with more is an error.
        gone_count: pictures of earlier runs that are not in the input any more; their results are kept.
        gone_sha256: over them; empty where there are none.
        format_version: of plan, receipts and part files.
    """

    listing_sha256: str
    picture_count: int
    first_part: int
    model: str
    model_version: str
    model_digest: str
    part_size: int
    output: str
    top_k: int
    all_probabilities: bool
    max_file_bytes: int
    gone_count: int = 0
    gone_sha256: str = ""
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Listing:
    """A first pass over the input, which is neither read nor kept.

    Attributes:
        sha256: over `parts`.
        count: of records.
        parts: a digest of each part's ids and sizes.
    """

    sha256: str
    count: int
    parts: tuple[bytes, ...]


def list_parts(records: Iterable[Record], part_size: int) -> Iterator[list[Record]]:
    """Records cut into parts; the last may be shorter."""
    left = in_turns(records)
    while part := list(islice(left, part_size)):
        yield part


def part_digest(part: Sequence[Record]) -> bytes:
    """Of a part's ids and sizes, in order."""
    digest = hashlib.sha256()
    for record in in_turns(part):
        name = record.id.encode("utf-8", "surrogatepass")
        digest.update(b"%d %d\n%s\n" % (len(name), record.size_bytes, name))
    return digest.digest()[:16]


def check_part(listing: Listing, number: int, part: Sequence[Record]) -> None:
    """See that a part is the one that was listed.

    Raises:
        JobError: the input changed since.
    """
    if number >= len(listing.parts) or part_digest(part) != listing.parts[number]:  # guard: batch-listing-kept
        raise JobError(
            f"the input changed while the job ran, at {part[0].id!r} or one of the {len(part) - 1} pictures after it; "
            "complete parts are kept: put the input back, or, where it has no shards, run again with --incremental"
        )


def listing_of(parts: Sequence[bytes], count: int) -> Listing:
    """What was listed, from the digests of its parts."""
    return Listing(hashlib.sha256(b"".join(parts)).hexdigest(), count, tuple(parts))


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
    if document["part_size"] < 1 or min(document[name] for name in _COUNTS) < 0:
        raise ValueError(f"{', '.join(_COUNTS)} or part_size is too low")
    return Plan(**document)


def describe_difference(old: Plan, new: Plan) -> str:
    """What keeps one plan from resuming the other; empty if nothing does."""
    differences = []
    comparable = old.part_size == new.part_size or old.picture_count != new.picture_count
    if old.listing_sha256 != new.listing_sha256 and comparable:  # listings cut into other parts differ anyway
        differences.append(f"other pictures ({old.picture_count} then, {new.picture_count} now)")
    if old.gone_sha256 != new.gone_sha256:  # guard: batch-gone-bound
        differences.append(
            f"other pictures of earlier runs are not in the input ({old.gone_count} then, {new.gone_count} now)"
        )
    for name, words in (
        ("model", "model"),
        ("model_version", "model version"),
        ("model_digest", "content of the model's version"),
        ("part_size", "part size"),
        ("output", "output format"),
        ("top_k", "number of labels"),
        ("all_probabilities", "choice of --all-probabilities"),
        ("max_file_bytes", "limit of a file"),
        ("format_version", "file format"),
    ):
        then, now = getattr(old, name), getattr(new, name)
        if then != now:
            differences.append(f"another {words} ({then} then, {now} now)")
    return ", ".join(differences)


def part_count(plan: Plan) -> int:
    """How many part files the finished plan has, without those of earlier runs."""
    return -(-plan.picture_count // plan.part_size)


def part_length(plan: Plan, part: int) -> int:
    """How many pictures a part of this plan is about; 0 for a number that is none of its own."""
    index = part - plan.first_part
    if not 0 <= index < part_count(plan):
        return 0
    return min((index + 1) * plan.part_size, plan.picture_count) - index * plan.part_size
