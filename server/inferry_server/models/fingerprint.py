"""Whether the files of a version are still those that it was loaded from."""

from collections.abc import Iterator
from pathlib import Path

from inferry_proto.version_labels import LABELS_FILE
from inferry_server.models.repository import VersionFolder

Fingerprint = tuple[object, ...]
"""Of the files of a version: equal while none of them is exchanged."""


def fingerprint(folder: VersionFolder) -> Fingerprint:
    """What differs when the files of a version, or those beside the versions, were exchanged."""
    facts: list[object] = []
    try:
        for path in sorted(_files(folder)):
            status = path.stat()
            facts.append((path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    except OSError as error:
        facts.append(str(error))
    return tuple(facts)


def _files(folder: VersionFolder) -> Iterator[Path]:
    """Everything that a version is made of; a folder in its folder may be a model too (`model.onnx/`)."""
    for path in folder.path.iterdir():
        yield path
        if path.is_dir():
            yield from path.iterdir()
    for path in folder.path.parent.iterdir():
        hidden = path.name.startswith(".")
        if path.name != LABELS_FILE and not hidden and path.is_file():  # labels of versions are read every time
            yield path
