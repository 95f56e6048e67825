"""A version of a model repository by its folder: what it is called, and all of it to be sent elsewhere."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inferry_client.batch.errors import JobError


@dataclass(frozen=True)
class ModelFiles:
    """A published version that can be sent to another machine.

    Attributes:
        model: its name.
        version: its number.
        files: their bytes, by name.
    """

    model: str
    version: str
    files: Mapping[str, bytes]


def read_version_name(folder: Path) -> tuple[str, str]:
    """Model and version as a server calls what lies in `MODEL/VERSION`.

    A link is followed where it is called otherwise than versions are, as `latest`. The model is empty where what it
    leads to is no version of a repository either.
    """
    for path in (Path(os.path.abspath(folder)), folder.resolve()):  # noqa: PTH100 - links keep their names
        if path.name.isascii() and path.name.isdigit() and not path.name.startswith("0"):
            return path.parent.name, path.name
    return "", path.name


def read_model_files(folder: Path) -> ModelFiles:
    """The version that lies in a folder, `models/mnist/3`.

    Raises:
        JobError: it cannot be read.
    """
    model, version = read_version_name(folder)
    try:
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    except OSError as error:
        raise JobError(f"{folder} cannot be read: {error.strerror or error}") from error
    return ModelFiles(model or "model", version, files)
