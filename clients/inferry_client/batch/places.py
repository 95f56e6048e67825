"""Where a job's results go: a folder here, or what begins with a name in an object store.

Both keep files whole or not at all, and let one job at a time write. A folder is synced and renamed into; an object
store has no renaming, so there a file is put under a condition.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from inferry_client.batch.addresses import is_address
from inferry_client.batch.errors import JobError
from inferry_client.batch.files import remove_unfinished, write_whole
from inferry_client.batch.ownership import owned
from inferry_proto.files import open_file


class Place(Protocol):
    """Reads and writes files by name, `/` between a folder and what is in it. One thread uses it."""

    def check(self) -> None:
        """See that the place is there or can be made.

        Raises:
            JobError: it cannot.
        """

    def owned(self, folders: Iterable[str]) -> AbstractContextManager[None]:
        """The place with these folders in it, for one job alone.

        Raises:
            JobError: another job is at work there.
        """

    def names(self, folder: str = "") -> list[str]:
        """What is directly in a folder, without the folder's own name; nothing if it is not there.

        Raises:
            JobError: it cannot be listed.
        """

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            OSError: it is not there, or cannot be read.
        """

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | OSError]:
        """Files in the order of their names, or why one cannot be read."""

    def write(self, name: str, data: bytes) -> None:
        """The whole file or none of it, kept once this returns.

        Raises:
            JobError: it cannot be written.
        """

    def write_long(self, name: str, pieces: Iterable[bytes]) -> None:
        """As `write`, of a file that need not fit into memory and that nobody else writes."""

    def delete(self, name: str) -> None:
        """A file that is there or not.

        Raises:
            JobError: it cannot be deleted.
        """

    def differs(self, name: str, *, size_bytes: int, sha256: str) -> str:
        """What keeps a file from being the one that was written; empty if nothing is known to.

        Raises:
            OSError: it cannot be looked at.
        """

    def inner(self, name: str) -> "Place":
        """The place of a folder in it."""

    def folders(self) -> list[str]:
        """The names of the folders in it, in order."""


class FolderPlace:
    """A folder of this machine's file systems."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def check(self) -> None:
        """See that no file is in its way."""
        for place in (self._path, *self._path.parents):
            if place.is_dir():
                return
            if place.exists() or place.is_symlink():
                raise JobError(f"--out {self._path} is to be a folder, but {place} is a file; choose another path")

    @contextmanager
    def owned(self, folders: Iterable[str]) -> Iterator[None]:
        """The folder, made where it is missing; what a killed job was writing is removed."""
        inner = [self._path, *(self._path / name for name in folders)]
        for folder in inner:
            folder.mkdir(parents=True, exist_ok=True)
        with owned(self._path):
            for folder in inner:
                remove_unfinished(folder)
            yield

    def names(self, folder: str = "") -> list[str]:
        """What is in it."""
        path = self._path / folder
        return [entry.name for entry in path.iterdir()] if path.is_dir() else []

    def read(self, name: str) -> bytes:
        """A regular file's bytes."""
        with open_file(self._path / name) as file:
            return file.read()

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | OSError]:
        """One after the other."""
        for name in names:
            try:
                yield self.read(name)
            except OSError as error:
                yield error

    def write(self, name: str, data: bytes) -> None:
        """Beside its place, synced, renamed."""
        write_whole(self._path / name, (data,))

    def write_long(self, name: str, pieces: Iterable[bytes]) -> None:
        """Beside its place, synced, renamed."""
        write_whole(self._path / name, pieces)

    def delete(self, name: str) -> None:
        """Its name."""
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise JobError(f"{self._path / name} cannot be deleted: {error.strerror}") from error

    def differs(self, name: str, *, size_bytes: int, sha256: str) -> str:
        """By all of its bytes."""
        path = self._path / name
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest == sha256:
            return ""
        return f"it has {path.stat().st_size} bytes that are not the {size_bytes} of its receipt"

    def inner(self, name: str) -> "FolderPlace":
        """A folder in it."""
        return FolderPlace(self._path / name)

    def folders(self) -> list[str]:
        """Those in it."""
        return sorted(path.name for path in self._path.glob("*") if path.is_dir())


def is_same_place(one: str, other: str) -> bool:
    """Whether two paths or addresses name one folder."""
    if is_address(one) or is_address(other):
        return one.rstrip("/") == other.rstrip("/")
    return os.path.realpath(one) == os.path.realpath(other)


def open_place(out: Path | str) -> Place:
    """The place that a path or an address names.

    Raises:
        JobError: nothing can be written there.
    """
    text = str(out)
    if not is_address(text):
        return FolderPlace(Path(text))
    from inferry_client.batch.remote.place import open_object_place

    return open_object_place(text)
