"""A version of a model repository by its folder: what it is called, and all of it to be sent elsewhere."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from inferry_client.batch.errors import JobError
from inferry_proto.label_files import LABELS_FILE, LabelFileError, label_files, labelled_output, read_first_labels
from inferry_proto.manifest_pb2 import Signature


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


def read_output_labels(folder: Path, signature: Signature) -> tuple[str, ...]:
    """The labels of a version's first output that a file has, where its manifest has none.

    Raises:
        JobError: the file cannot be read.
    """
    try:
        labels = read_first_labels(label_files(folder)) or ()
    except LabelFileError as error:
        raise JobError(str(error)) from error
    counts = {output.name: None if -1 in output.shape[1:] else prod(output.shape[1:]) for output in signature.outputs}
    first = next(iter(counts), None)
    return labels[: counts[first]] if first is not None and labelled_output(counts, labels) == first else ()


def read_model_files(folder: Path) -> ModelFiles:
    """The version that lies in a folder, `models/mnist/3`, with the labels that lie beside it for all versions.

    Raises:
        JobError: it cannot be read.
    """
    model, version = read_version_name(folder)
    try:
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        _, beside = label_files(folder)
        if LABELS_FILE not in files and beside.is_file():
            files[LABELS_FILE] = beside.read_bytes()
    except OSError as error:
        raise JobError(f"{folder} cannot be read: {error.strerror or error}") from error
    return ModelFiles(model or "model", version, files)
