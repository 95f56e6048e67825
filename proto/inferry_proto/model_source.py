"""The bytes of a model, read once: what was checked is what is computed, whoever writes to the files afterwards."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from inferry_proto.external_data import ExternalDataError, own_external_data
from inferry_proto.files import read_file

MODEL_FILE = "model.onnx"
"""How a model is called, unless its configuration says otherwise."""

_MOST_MODEL_BYTES = (2 << 30) - 1  # of a protobuf message


class ModelSourceError(ValueError):
    """A model that cannot be read whole."""


@dataclass(frozen=True)
class ModelSource:
    """A model in memory.

    Attributes:
        path: the file it was read from, for messages.
        model: what ONNX Runtime is given.
        weights: files that it names, by the names it has for them, in memory.
        files: every file that was read, by its name in the version's folder, as it lay there.
    """

    path: Path
    model: bytes
    weights: Mapping[str, bytes]
    files: Mapping[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Of all that was read."""
        return sum(map(len, self.files.values()))

    @cached_property
    def sha256(self) -> str:
        """Of the one file that was read; of several, of what `sha256sum` prints for them by name."""
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(self.files.items())}
        if len(digests) == 1:
            return next(iter(digests.values()))
        printed = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
        return hashlib.sha256(printed.encode("utf-8", "surrogateescape")).hexdigest()


def read_source(path: Path, *, available_bytes: Callable[[], int]) -> ModelSource:
    """Read a model with the weights that lie beside it.

    Args:
        path: an ONNX file, or a folder with `model.onnx` in it, as Triton has it.
        available_bytes: that a file of weights may have.

    Raises:
        ModelSourceError: a file is missing or cannot be read, lies outside the model's folder, or there is no memory
            for it.
    """
    try:
        inside = path.name + "/" if path.is_dir() else ""
    except OSError as error:  # a folder above may not be searched, or the name is too long
        raise ModelSourceError(f"{path} cannot be read: {error.strerror}") from error
    if inside:
        path = path / MODEL_FILE
    model = _read(path, most_bytes=_MOST_MODEL_BYTES)
    files = {inside + path.name: model}

    def read(name: str) -> bytes:
        data = files[inside + name] = _read(_beside(path, name), most_bytes=available_bytes())
        return data

    try:
        owned = own_external_data(model, read)
    except ExternalDataError as error:
        raise ModelSourceError(f"{path}: {error}") from error
    if len(owned.model) > _MOST_MODEL_BYTES:
        raise ModelSourceError(f"{path}: with its small weights it has {len(owned.model)} bytes; ONNX ends at 2 GiB")
    return ModelSource(path, owned.model, owned.files, files)


def _beside(path: Path, name: str) -> Path:
    """The file that a model names; it must lie in the model's folder, or beside the file that a link leads to."""
    beside = path.parent / name
    try:
        real = beside.resolve()
        folders = {path.parent.resolve(), path.resolve().parent}
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelSourceError(f"{path}: External data path {name!r} leads nowhere: {error}") from error
    if not any(real.is_relative_to(folder) for folder in folders):  # guard: paths-external-data
        raise ModelSourceError(f"{path}: External data path {name!r} leads out of the model's folder, to {real}")
    return beside


def _read(path: Path, *, most_bytes: int) -> bytes:
    try:
        return read_file(path, most_bytes=most_bytes)
    except FileNotFoundError as error:
        raise ModelSourceError(f"{path} is missing") from error
    except OSError as error:
        raise ModelSourceError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no path, as with a null character
        raise ModelSourceError(f"{path}: External data path {path.name!r} is none: {error}") from error
    except MemoryError as error:
        raise ModelSourceError(f"{path}: there is no memory for its {path.stat().st_size} bytes") from error
