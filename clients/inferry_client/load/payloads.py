"""The requests of a load test, serialized beforehand so that sending one costs as little as can be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_client import requests
from inferry_client.batch.pictures import find_pictures
from inferry_client.load.errors import LoadError
from inferry_client.requests import Call
from inferry_client.results import ModelMetadata, TensorSpec
from inferry_proto.datatypes import DATATYPES

_RANDOM_REQUESTS = 16  # different ones, so that no cache can answer
_MAX_PICTURES = 256  # of a folder; more would only fill memory


def random_calls(metadata: ModelMetadata, *, version: str) -> list[Call[Any]]:
    """Requests of one row each with random contents, for any model whose shapes are known.

    Raises:
        LoadError: an axis besides the first has any length, or a tensor holds no numbers.
    """
    generator = np.random.default_rng(0)
    return [
        requests.infer(
            metadata.model,
            {spec.name: _random_tensor(generator, spec, metadata.model) for spec in metadata.inputs},
            version=version,
        )
        for _ in range(_RANDOM_REQUESTS)
    ]


def picture_files(path: Path) -> list[Path]:
    """The file itself, or the first pictures of a folder.

    Raises:
        InferryError: a folder without pictures.
    """
    if not path.is_dir():
        return [path]
    return [path / picture.path for picture in find_pictures(path, recursive=True)[:_MAX_PICTURES]]


def picture_calls(files: Sequence[Path], *, model: str, version: str) -> list[Call[Any]]:
    """Requests of one encoded picture each.

    Raises:
        OSError: a picture that cannot be read.
    """
    return [requests.classify(model, [file.read_bytes()], version=version) for file in files]


def write_payloads(calls: Sequence[Call[Any]], folder: Path) -> None:
    """Keep the serialized requests for `read_payloads`."""
    for number, call in enumerate(calls):
        (folder / f"{number:04}.request").write_bytes(call.request.SerializeToString())


def read_payloads(folder: Path) -> list[bytes]:
    """The serialized requests, in order."""
    return [path.read_bytes() for path in sorted(folder.glob("*.request"))]


def _random_tensor(generator: np.random.Generator, spec: TensorSpec, model: str) -> NDArray[Any]:
    shape = (1, *spec.shape[1:]) if spec.shape and spec.shape[0] == -1 else spec.shape
    datatype = DATATYPES.get(spec.datatype)
    if -1 in shape or datatype is None or datatype.name in ("BYTES", "BF16"):
        raise LoadError(
            f"model {model!r} takes {spec.name} as {spec.datatype} {list(spec.shape)}, which random contents cannot "
            "fill; send pictures with --images"
        )
    if datatype.dtype.kind == "f":
        return generator.random(shape).astype(datatype.dtype)
    return generator.integers(0, 2 if datatype.name != "UINT8" else 256, shape).astype(datatype.dtype)
