"""What every input yields: records. A record is one picture, with an id of its own and a place to read it from.

Contents can be pickled, so that another process reads and decodes them.
"""

import hashlib
import os
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from inferry_proto.files import read_file

if TYPE_CHECKING:
    from zipfile import ZipFile

UNREADABLE, NO_PICTURE, TOO_COSTLY, NO_ANSWER = "unreadable", "not a picture", "too costly", "no answer"
"""Kinds of errors, as the dead-letter file and the progress name them."""

MOST_LOST = 1 << 20
"""Pictures that a file promises and lacks, each of which is an error. With more, what promises them is damaged."""


@dataclass(frozen=True)
class Fault:
    """Why a picture has no answer.

    Attributes:
        kind: one of those above.
        reason: what was found, in words.
    """

    kind: str
    reason: str


class ContentError(Exception):
    """A picture whose bytes cannot be read."""


class Content(Protocol):
    """Where a picture's bytes are."""

    def read(self, *, most_bytes: int) -> bytes:
        """The whole picture.

        Raises:
            ContentError: it cannot be read, or has more bytes.
        """


class Record(NamedTuple):
    """One picture of the input: a named tuple, which is made in a third of a frozen dataclass's time.

    Attributes:
        id: unique in its input; any text.
        size_bytes: 0 where it cannot be told before it is read.
        stamp: changes whenever the picture may have changed; the same stamp means the same bytes.
        content: where the bytes are.
    """

    id: str
    size_bytes: int
    stamp: str
    content: Content


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file of its own: a regular one, whatever is put there later."""

    path: str

    def __reduce__(self) -> tuple[type["FileContent"], tuple[str]]:
        """Made anew where it is unpickled: a third of what a dataclass with slots costs, which is read by millions."""
        return FileContent, (self.path,)

    def read(self, *, most_bytes: int) -> bytes:
        """The whole file."""
        try:
            return read_file(self.path, most_bytes=most_bytes)
        except OSError as error:
            raise ContentError(error.strerror or str(error)) from error


@dataclass(frozen=True, slots=True)
class DataContent:
    """Bytes that were read already."""

    data: bytes

    def read(self, *, most_bytes: int) -> bytes:
        """The bytes."""
        return _within(self.data, most_bytes)


class Readable(Hashable, Protocol):
    """A file that is read in parts. Its methods raise OSError where it cannot be read."""

    @property
    def remote(self) -> bool:
        """Whether reading waits for somebody elsewhere."""

    def open(self) -> IO[bytes]:
        """Its bytes, from the first one; it can seek."""

    def read_range(self, start: int, size: int) -> bytes:
        """Some of its bytes; fewer where it ends."""


@dataclass(frozen=True, slots=True)
class SliceContent:
    """Some bytes of a larger file, as a member of an uncompressed tar archive."""

    source: Readable
    offset: int
    size_bytes: int

    @property
    def remote(self) -> bool:
        """Where the file is."""
        return self.source.remote

    def read(self, *, most_bytes: int) -> bytes:
        """Those bytes."""
        check_size(self.size_bytes, most_bytes)
        try:
            data = self.source.read_range(self.offset, self.size_bytes)
        except OSError as error:
            raise ContentError(error.strerror or str(error)) from error
        if len(data) != self.size_bytes:
            raise ContentError(f"the archive ends after {len(data)} of its {self.size_bytes} bytes")
        return data


@dataclass(frozen=True, slots=True)
class ZipContent:
    """A member of a zip archive."""

    source: Readable
    index: int
    size_bytes: int

    def read(self, *, most_bytes: int) -> bytes:
        """The member, unpacked; never more than the archive says."""
        check_size(self.size_bytes, most_bytes)
        try:
            archive = _open_zip(self.source)
            with archive.open(archive.infolist()[self.index]) as file:
                return _within(file.read(most_bytes + 1), most_bytes)
        except ContentError:
            raise
        except Exception as error:  # damage has many: of zipfile, and what zlib, bz2 and lzma raise
            raise ContentError(f"it cannot be unpacked: {error}") from error


@dataclass(frozen=True, slots=True)
class PixelsContent:
    """A picture that needs no decoding.

    Attributes:
        content: of the pixels, uint8.
        shape: `(H, W)`, or `(H, W, C)` with 1 or 3 channels.
    """

    content: Content
    shape: tuple[int, ...]

    @property
    def remote(self) -> bool:
        """Where the pixels are."""
        return is_remote(self.content)

    def read(self, *, most_bytes: int) -> bytes:
        """The pixels, row by row."""
        return self.content.read(most_bytes=most_bytes)


@dataclass(frozen=True, slots=True)
class MissingContent:
    """What has no bytes, and why: a folder that cannot be listed, a row without a picture."""

    reason: str

    def read(self, *, most_bytes: int) -> bytes:  # noqa: ARG002 - as every content
        """Nothing."""
        raise ContentError(self.reason)


def content_digest(data: bytes) -> str:
    """Of a picture's bytes, as entries of receipts have it."""
    return hashlib.sha256(data).hexdigest()[:32]


def is_remote(content: Content) -> bool:
    """Whether reading waits for somebody elsewhere, so that several are best read at a time."""
    return bool(getattr(content, "remote", False))


def check_size(size_bytes: int, most_bytes: int) -> None:
    """See that a picture is not too large, before it is read.

    Raises:
        ContentError: it is.
    """
    if size_bytes > most_bytes:  # guard: batch-picture-size
        raise ContentError(f"it has {size_bytes} bytes; expected at most {most_bytes}")


def printable_name(name: str) -> str:
    r"""A name as text that any file can hold, another one for every name.

    Bytes that are not UTF-8 become `\xNN`; a backslash that is there is doubled, so that nothing else does.
    """
    if name.isascii() and "\\" not in name:
        return name
    return os.fsencode(name.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")


def _within(data: bytes, most_bytes: int) -> bytes:
    check_size(len(data), most_bytes)
    return data


@lru_cache(maxsize=4)
def _open_zip(source: Readable) -> "ZipFile":
    import zipfile

    return zipfile.ZipFile(source.open())
