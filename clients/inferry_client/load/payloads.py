"""The requests of a load test, serialized beforehand so that sending one costs as little as can be."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.pictures import find_pictures
from inferry_client.client import Client
from inferry_client.commands.classify import Answer, classify_file, describe_for_pictures
from inferry_client.commands.models import choose_model
from inferry_client.console.output import complain
from inferry_client.load.answers import Expectation, expect_labels, expect_tensors, load_expectation, said
from inferry_client.load.choosing import spread
from inferry_client.load.errors import LoadError
from inferry_client.load.targets import write_target
from inferry_client.messages import requests
from inferry_client.messages.call import Call
from inferry_client.messages.streams import STREAMED
from inferry_client.results import ModelMetadata, TensorSpec
from inferry_proto.datatypes import DATATYPES

_RANDOM_REQUESTS = 16  # different ones, so that no cache can answer
_MAX_PICTURES = 256  # of a folder; more would only fill memory
FOLDERS = "folders"
"""For `verify`: the name of a picture's folder is its label."""

_EXPECTATION_FILE = "expectation.json"


@dataclass(frozen=True)
class Payloads:
    """What users send, and what answers must be.

    Attributes:
        requests: serialized, all of one unary RPC; users choose among them.
        expectation: of every answer.
    """

    requests: tuple[bytes, ...]
    expectation: Expectation

    @property
    def unary_path(self) -> str:
        """Of the unary RPC that takes the requests."""
        return self.expectation.path

    @property
    def streamed(self) -> bool:
        """Whether they travel on the bidirectional RPC instead."""
        return self.expectation.streamed

    @property
    def name(self) -> str:
        """In reports: the RPC and the model."""
        path = STREAMED[self.unary_path].method.path if self.streamed else self.unary_path
        return f"{path.rsplit('/', 1)[1]} {self.expectation.model}"


def choose_payloads(
    client: Client,
    model: str | None,
    *,
    version: str = "",
    images: str | None = None,
    rows: int = 1,
    streamed: bool = False,
    verify: str | None = None,
    record: Path | None = None,
) -> Payloads:
    """The requests for a model, tried once: what is wrong with them shows here, not as thousands of failures.

    Args:
        client: of the server.
        model: None or empty where one is ready.
        version: a version or a label.
        images: a picture, or a folder of them; else random contents of the model's shape.
        rows: pictures or rows of a request.
        streamed: send them on bidirectional streams.
        verify: FOLDERS, where a picture's folder names its label, or the file of a recorded run.
        record: where to keep what the server answers now, for later runs to be verified against.

    Raises:
        InferryError: the server refuses the request, or it cannot be made.
    """
    model = choose_model(client, model)
    if images:
        description = describe_for_pictures(client, model, version)
        # One after the other: in Locust's process there are no threads that could do it together.
        answers = [classify_file(client, description, str(path), top_k=1) for path in picture_files(Path(images))]
        usable = _usable(answers)
        calls: list[Call[Any]] = picture_calls(usable, model=model, version=version, rows=rows)
        expectation = expect_labels(model, rows=rows)
    else:
        usable = []
        metadata = client.model_metadata(model, version=version)
        calls = random_calls(metadata, version=version, rows=rows)
        expectation = expect_tensors(metadata, rows=rows)
    calls = [replace(call, pieces=None) for call in calls]  # a request too large is refused, not cut
    expectation.check(client.run(calls[0]))
    serialized = tuple(call.request.SerializeToString() for call in calls)
    if record:
        write_recording(record, serialized, [said(client.run(call)) for call in calls])
    if verify:
        known = (
            _folder_labels(usable, rows, list(client.describe(model, version=version).labels))
            if verify == FOLDERS
            else read_recording(Path(verify), serialized)
        )
        expectation = replace(expectation, answers=tuple(known))
    return Payloads(serialized, replace(expectation, streamed=streamed))


def write_recording(path: Path, requests: Sequence[bytes], answers: Sequence[Any]) -> None:
    """Keep answers by the digests of their requests, for `read_recording`."""
    kept = {sha256(request).hexdigest(): answer for request, answer in zip(requests, answers, strict=True)}
    write_target(path, json.dumps({"answers": kept}) + "\n")


def read_recording(path: Path, requests: Sequence[bytes]) -> list[Any]:
    """The answers that were recorded for these requests.

    Raises:
        LoadError: the file is no recording, or was made with other requests.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["answers"]
        return [kept[sha256(request).hexdigest()] for request in requests]
    except OSError as error:
        raise LoadError(f"--verify {path} cannot be read: {error.strerror}") from error
    except KeyError:
        raise LoadError(
            f"--verify {path} was recorded with other requests; record it anew with the same --images and --rows"
        ) from None
    except (ValueError, TypeError) as error:
        raise LoadError(f"--verify {path} is no recording of `inferry load --record`: {error}") from error


def _folder_labels(files: Sequence[Path], rows: int, labels: Sequence[str]) -> list[list[str]]:
    names = [file.resolve().parent.name for file in files]
    if not names:
        raise LoadError(f"--verify {FOLDERS} needs pictures in folders named by their labels; give them with --images")
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise LoadError(f"--verify {FOLDERS}: {unknown[0]!r} is no label of the model; it has {', '.join(labels)}")
    return [[names[(first + step) % len(names)] for step in range(rows)] for first in range(len(names))]


def random_calls(metadata: ModelMetadata, *, version: str, rows: int = 1) -> list[Call[Any]]:
    """Requests with random contents, for any model whose shapes are known.

    Raises:
        LoadError: an axis besides the first has any length, or a tensor holds no numbers.
    """
    generator = np.random.default_rng(0)
    return [
        requests.infer(
            metadata.model,
            {spec.name: _random_tensor(generator, spec, metadata.model, rows) for spec in metadata.inputs},
            version=version,
        )
        for _ in range(_RANDOM_REQUESTS)
    ]


def picture_files(path: Path) -> list[Path]:
    """The file itself, or pictures of a folder and of those below it, of each as many; what is left out is said.

    Raises:
        InferryError: a folder without pictures.
    """
    if not path.is_dir():
        return [path]
    found = [path / picture.path for picture in find_pictures(path, recursive=True)]
    chosen = spread(found, _MAX_PICTURES)
    if len(chosen) < len(found):
        complain(f"{len(chosen)} of the {len(found)} pictures are sent, of every folder as many")
    return chosen


def picture_calls(files: Sequence[Path], *, model: str, version: str, rows: int = 1) -> list[Call[Any]]:
    """Requests of encoded pictures, each file first in one of them.

    Raises:
        OSError: a picture that cannot be read.
    """
    pictures = [file.read_bytes() for file in files]
    groups = [[pictures[(first + step) % len(pictures)] for step in range(rows)] for first in range(len(pictures))]
    return [requests.classify(model, group, version=version) for group in groups]


def write_payloads(payloads: Payloads, folder: Path) -> None:
    """Keep the requests for `read_payloads`."""
    (folder / _EXPECTATION_FILE).write_text(payloads.expectation.dump(), encoding="utf-8")
    for number, request in enumerate(payloads.requests):
        (folder / f"{number:04}.request").write_bytes(request)


def read_payloads(folder: Path) -> Payloads:
    """What `write_payloads` kept, in order."""
    expectation = load_expectation((folder / _EXPECTATION_FILE).read_text(encoding="utf-8"))
    return Payloads(tuple(path.read_bytes() for path in sorted(folder.glob("*.request"))), expectation)


def _random_tensor(generator: np.random.Generator, spec: TensorSpec, model: str, rows: int) -> NDArray[Any]:
    batched = bool(spec.shape) and spec.shape[0] == -1
    if rows > 1 and not batched:
        raise LoadError(
            f"model {model!r} takes {spec.name} as {list(spec.shape)}, which has no rows; expected --rows 1"
        )
    shape = (rows, *spec.shape[1:]) if batched else spec.shape
    datatype = DATATYPES.get(spec.datatype)
    if -1 in shape or datatype is None or datatype.name in ("BYTES", "BF16"):
        raise LoadError(
            f"model {model!r} takes {spec.name} as {spec.datatype} {list(spec.shape)}, which random contents cannot "
            "fill; send pictures with --images"
        )
    if datatype.dtype.kind == "f":
        return generator.random(shape).astype(datatype.dtype)
    return generator.integers(0, 2 if datatype.name != "UINT8" else 256, shape).astype(datatype.dtype)


def _usable(answers: list[Answer]) -> list[Path]:
    """The pictures that the server classified; the others are named and left out."""
    bad = [answer for answer in answers if answer.problem]
    if len(bad) == len(answers):
        raise LoadError(f"no picture can be sent: {bad[0].path}: {bad[0].problem}" + _and_more(len(bad) - 1))
    for answer in bad:
        complain(f"left out: {answer.path}: {answer.problem}")
    return [Path(answer.path) for answer in answers if not answer.problem]


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count else ""
