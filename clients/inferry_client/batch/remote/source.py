"""Files and folders of elsewhere as inputs have them."""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import IO

from inferry_client.batch.addresses import Address, name_of, read_address
from inferry_client.batch.archives import is_picture
from inferry_client.batch.errors import JobError
from inferry_client.batch.records import ContentError, Record, printable_name
from inferry_client.batch.remote.objects import Found, list_below, list_folder, look_at, read_object, read_range
from inferry_client.batch.remote.web import look_at_web, read_web, read_web_range

_BUFFER_BYTES = 4 << 20
"""Of one request, so that a store's answering time counts little beside the reading."""


@dataclass(frozen=True, slots=True)
class RemoteContent:
    """A picture that is an object or a web server's file.

    Attributes:
        address: of it.
        tag: that an object must still have; None where it was not looked at before.
    """

    address: Address
    tag: str | None = None

    @property
    def remote(self) -> bool:
        """It is."""
        return True

    def read(self, *, most_bytes: int) -> bytes:
        """All of it."""
        try:
            if self.address.is_web:
                return read_web(self.address, most_bytes=most_bytes)
            return read_object(self.address, most_bytes=most_bytes, tag=self.tag)
        except OSError as error:
            raise ContentError(error.strerror or str(error)) from error


@dataclass(frozen=True)
class RemoteFile:
    """A file that is read in parts: an archive, a table, a list. Two of the same tag are the same file."""

    address: Address
    tag: str
    size_bytes: int

    def __str__(self) -> str:
        return str(self.address)

    @property
    def name(self) -> str:
        """As files are called."""
        return name_of(self.address)

    @property
    def remote(self) -> bool:
        """Whether reading waits for somebody."""
        return True

    def pinned(self) -> "RemoteFile":
        """This file: it is only read while it has its tag."""
        return self

    def stamp(self) -> str:
        """Its tag."""
        return self.tag

    def open(self) -> IO[bytes]:
        """Its bytes."""
        return io.BufferedReader(_Ranges(self), _BUFFER_BYTES)

    def read_range(self, start: int, size: int) -> bytes:
        """Some of its bytes."""
        read = read_web_range if self.address.is_web else read_range
        return read(self.address, start, size, tag=self.tag)

    def beside(self, path: str) -> Record:
        """What a path in it is about, relative to where it lies; nothing of it is known before it is read."""
        where = path if path.startswith("/") else f"{self.address.key.partition('?')[0].rpartition('/')[0]}/{path}"
        return addressed_record(
            printable_name(path), Address(self.address.scheme, self.address.host, where.lstrip("/"))
        )


def open_remote_file(address: Address) -> RemoteFile:
    """A file as it is now.

    Raises:
        JobError: it cannot be read, or not in parts.
    """
    try:
        found = look_at_web(address) if address.is_web else look_at(address)
    except OSError as error:
        raise JobError(f"{address} cannot be read: {error.strerror or error}") from error
    return RemoteFile(address, found.tag, found.size_bytes)


def addressed_record(own_id: str, address: Address) -> Record:
    """A picture that is looked at only when it is read: whether it changed since is not noticed later."""
    return Record(own_id, 0, "", RemoteContent(address))


@dataclass
class RemoteFolder:
    """What begins with a key in a bucket, a page of keys at a time.

    Attributes:
        folder: without a last `/`.
        recursive: whether to look into what has another `/`.
        left_out: what is no picture, by kind; of the latest pass.
    """

    folder: Address
    recursive: bool = True
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return str(self.folder)

    def records(self) -> Iterator[Record]:
        """Every object with a picture's suffix; ids are keys below the folder's.

        Raises:
            JobError: it cannot be listed.
        """
        self.left_out.clear()
        try:
            for found in self._objects():
                below = found.key.removeprefix(self.folder.key).removeprefix("/")
                if is_picture(below, self.left_out):
                    place = Address(self.folder.scheme, self.folder.host, found.key)
                    yield Record(printable_name(below), found.size_bytes, found.tag, RemoteContent(place, found.tag))
        except OSError as error:
            raise JobError(f"{self.folder} cannot be listed: {error.strerror or error}") from error

    def _objects(self) -> Iterator[Found]:
        if self.recursive:
            return list_below(self.folder)
        objects, folders = list_folder(self.folder)
        self.left_out["subfolders"] += len(folders)
        return iter(objects)


def match_addresses(text: str) -> list[str]:
    """The addresses of objects that a pattern of an object store names, in order.

    Raises:
        JobError: there are none.
    """
    address = read_address(text)
    if address.is_web:
        return [text]
    fixed = address.key.partition("*")[0].partition("?")[0].partition("[")[0].rpartition("/")[0]
    try:
        found = sorted(
            object_.key
            for object_ in list_below(Address(address.scheme, address.host, fixed))
            if _matches(object_.key, address.key)
        )
    except OSError as error:
        raise JobError(f"{address.root}/{fixed} cannot be listed: {error.strerror or error}") from error
    if not found:
        raise JobError(f"no object is called like {text}")
    return [f"{address.root}/{key}" for key in found]


def _matches(key: str, pattern: str) -> bool:
    """Whether a key is called like a pattern, in which `*` crosses no `/`."""
    names, patterns = key.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


class _Ranges(io.RawIOBase):
    """A remote file that is read where it is looked at."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        size = min(len(buffer), max(0, self._file.size_bytes - self._position))
        data = self._file.read_range(self._position, size)
        if len(data) != size:
            raise OSError(5, f"{len(data)} bytes came; expected {size}")
        buffer[:size] = data
        self._position += size
        return size
