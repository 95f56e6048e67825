"""Files that hold many pictures: archives, tables, lists. Here, or elsewhere (`remote.source.RemoteFile`)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from inferry_client.batch.folder import file_record, file_stamp
from inferry_client.batch.records import Readable, Record, printable_name
from inferry_proto.files import open_file


class Source(Readable, Protocol):
    """A file of an input. It can be pickled and compared; another process reads the same bytes.

    Its methods raise OSError where it cannot be read.
    """

    @property
    def name(self) -> str:
        """As it is called; its suffix says what it is."""

    def pinned(self) -> "Source":
        """This file as it is now: once another one is in its place, it cannot be read."""

    def stamp(self) -> str:
        """Another one whenever it may have changed."""

    def beside(self, path: str) -> Record:
        """The picture that a path in it names, relative to where it lies."""


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine's file systems.

    Attributes:
        path: where it lies.
        seen: its stamp when it was pinned; empty: it may be any file.
    """

    path: str
    seen: str = ""

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The last part of its path."""
        return Path(self.path).name

    @property
    def remote(self) -> bool:
        """It is here."""
        return False

    def pinned(self) -> "LocalFile":
        """This file, with the stamp that it has now."""
        return LocalFile(self.path, self.stamp())

    def stamp(self) -> str:
        """Of its times and inode."""
        return self.seen or file_stamp(Path(self.path).stat())

    def open(self) -> IO[bytes]:
        """Its bytes, if it is a regular file: a FIFO would wait, a device may never end."""
        file = open_file(self.path)
        if self.seen and file_stamp(os.fstat(file.fileno())) != self.seen:  # guard: batch-archive-pinned
            file.close()
            raise OSError(f"{self.path} has changed since its pictures were listed")
        return file

    def read_range(self, start: int, size: int) -> bytes:
        """Some of its bytes."""
        with self.open() as file:
            return os.pread(file.fileno(), size, start)

    def beside(self, path: str) -> Record:
        """A file's."""
        return file_record(os.path.join(os.path.dirname(self.path), path), printable_name(path))  # noqa: PTH118, PTH120
