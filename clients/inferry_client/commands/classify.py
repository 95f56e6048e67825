"""`inferry classify`: labels of pictures, one request a picture, so that a bad one harms no other."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from inferry_client.client import Client
from inferry_client.commands.errors import CommandError
from inferry_client.commands.models import choose_model
from inferry_client.console.output import complain, say, say_json, shown
from inferry_client.console.printing import classification_lines, picture_lines
from inferry_client.errors import InvalidRequestError, ReplyError
from inferry_client.results import Classification, ModelDescription

_CONCURRENCY = 8  # enough for the server to form batches


@dataclass(frozen=True)
class Answer:
    """One picture: its labels, or why it has none.

    Attributes:
        answered_by: the model that answered, where that is a variant of the one that was asked.
    """

    path: str
    classifications: tuple[Classification, ...] = ()
    problem: str = ""
    answered_by: str = ""


def run(args: Namespace) -> int:
    """Classify pictures and print them in order; the exit status is 1 if any could not be."""
    with Client(args.server, timeout_s=args.timeout_s) as client:
        model = describe_for_pictures(client, choose_model(client, args.model), args.version)
        answers = classify_files(
            client, model, args.images, top_k=args.top_k, accept_variant=args.accept_variant or None
        )
        problems = _print_json(answers, model) if args.json else _print_lines(answers, args.images)
    return 1 if problems else 0


def describe_for_pictures(client: Client, model: str, version: str) -> ModelDescription:
    """The description of a model; its version is a number, so that one version classifies every picture.

    Raises:
        CommandError: pictures cannot be prepared for this model.
    """
    description = client.describe_model(model, version=version)
    if description.preprocessing is None:
        raise CommandError(
            f"model {model!r} version {description.version} at {client.address} does not say how pictures are "
            "prepared for it; publish it with a manifest, or send tensors with the SDK's `infer`"
        )
    return description


def classify_file(
    client: Client, model: ModelDescription, path: str, *, top_k: int, accept_variant: bool | None = None
) -> Answer:
    """The answer to one picture.

    Raises:
        InferryError: what concerns all pictures, not this one.
    """
    try:
        picture = Path(path).read_bytes()
    except IsADirectoryError:
        return Answer(path, problem="it is a folder; give its files, or classify all of it with `inferry batch`")
    except OSError as error:
        return Answer(path, problem=error.strerror or str(error))
    try:
        result = client.classify(
            model.model, picture, version=model.version, top_k=top_k, accept_variant=accept_variant
        )
    except (InvalidRequestError, ReplyError) as error:
        return Answer(path, problem=error.details.removeprefix("image 0: ") or str(error))
    return Answer(path, result.images[0], answered_by=result.model if result.variant else "")


def classify_files(
    client: Client, model: ModelDescription, paths: Sequence[str], *, top_k: int, accept_variant: bool | None = None
) -> Iterator[Answer]:
    """The answers in the order of the paths; several requests are under way at a time.

    Raises:
        InferryError: what concerns all pictures, not one: the server is away, full, ...
    """
    pool = ThreadPoolExecutor(min(_CONCURRENCY, len(paths)))
    try:
        yield from pool.map(
            lambda path: classify_file(client, model, path, top_k=top_k, accept_variant=accept_variant), paths
        )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # closing the client ends the requests that are under way


def _print_lines(answers: Iterator[Answer], paths: Sequence[str]) -> int:
    problems = 0
    path_width = max(len(shown(path)) for path in paths)
    for answer in answers:
        _say_who(answer)
        if answer.problem:
            problems += 1
            _report(answer)
        elif len(paths) == 1:
            say("\n".join(classification_lines(answer.classifications)))
        else:
            say("\n".join(picture_lines(answer.path, answer.classifications, path_width=path_width)))
    return problems


def _print_json(answers: Iterator[Answer], model: ModelDescription) -> int:
    done = list(answers)
    bad = [answer for answer in done if answer.problem]
    for answer in bad:
        _report(answer)
    for answer in done:
        _say_who(answer)
    document = {
        "model": model.model,
        "model_version": model.version,
        "results": [
            {"path": answer.path, "classifications": [asdict(c) for c in answer.classifications]}
            | ({"answered_by": answer.answered_by} if answer.answered_by else {})
            for answer in done
            if not answer.problem
        ],
        "errors": [{"path": answer.path, "reason": answer.problem} for answer in bad],
    }
    say_json(document)
    return len(bad)


def _say_who(answer: Answer) -> None:
    if answer.answered_by:
        complain(f"{answer.path} was classified by {answer.answered_by}")


def _report(answer: Answer) -> None:
    complain(f"error: {answer.path} was not classified: {answer.problem}")
