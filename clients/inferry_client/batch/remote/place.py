"""A job's results in an object store, where nothing can be renamed.

An object is there whole or not at all. Each is put under a condition: that none is there, or that the one that this job
saw is still there. So a job that lost its lease while it stood still (see `lease`) replaces nothing. Where another
object is there, it is compared: two that make the same part write the same bytes, which is no error.
"""

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from inferry_client.batch.addresses import WEB, Address, read_address
from inferry_client.batch.errors import JobError
from inferry_client.batch.remote.lease import LEASE, Lease, leased
from inferry_client.batch.remote.objects import (
    ChangedError,
    Found,
    delete_object,
    list_folder,
    look_at,
    put_long,
    put_object,
    read_object,
)

_READS_AHEAD = 32
_IN_MEMORY_BYTES = 4 << 20


class ObjectPlace:
    """A place in a bucket; see `Place`."""

    def __init__(self, address: Address) -> None:
        self._address = Address(address.scheme, address.host, address.key.strip("/"))
        self._seen: dict[str, Found] = {}
        self._lease: Lease | None = None

    def __str__(self) -> str:
        return str(self._address)

    def check(self) -> None:
        """See that the bucket answers."""
        self.names()

    @contextmanager
    def owned(self, folders: Iterable[str]) -> Iterator[None]:
        """For one job alone, by a lease that is an object too."""
        with leased(self._at(LEASE), str(self)) as self._lease:
            self._seen.clear()
            for folder in ("", *folders):
                self.names(folder)
            try:
                yield
            finally:
                self._lease = None

    def names(self, folder: str = "") -> list[str]:
        """What is directly in it."""
        where = self._at(folder) if folder else self._address
        try:
            objects, _ = list_folder(where)
        except OSError as error:
            raise JobError(f"{where} cannot be listed: {error.strerror or error}") from error
        below = f"{where.key}/" if where.key else ""
        named = {found.key.removeprefix(below): found for found in objects}
        self._seen.update({f"{folder}/{name}" if folder else name: found for name, found in named.items()})
        return [name for name in named if name]

    def read(self, name: str) -> bytes:
        """An object's bytes."""
        return read_object(self._at(name))

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | OSError]:
        """In order, some read ahead."""

        def read(name: str) -> bytes | OSError:
            try:
                return self.read(name)
            except OSError as error:
                return error

        left = iter(names)
        with ThreadPoolExecutor(_READS_AHEAD, thread_name_prefix="batch-read") as pool:
            reading = [pool.submit(read, name) for _, name in zip(range(_READS_AHEAD), left, strict=False)]
            while reading:
                yield reading.pop(0).result()
                reading.extend(pool.submit(read, name) for _, name in zip(range(1), left, strict=False))

    def write(self, name: str, data: bytes) -> None:
        """If no other job has written it meanwhile, or the same."""
        self._check_owned()
        try:
            self._seen[name] = self._put(name, data)
        except OSError as error:
            raise self._failed(name, error) from error

    def write_long(self, name: str, pieces: Iterable[bytes]) -> None:
        """Gathered in a temporary file, then put."""
        self._check_owned()
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
            for piece in pieces:
                file.write(piece)
            file.seek(0)
            try:
                put_long(self._at(name), file)
            except OSError as error:
                raise self._failed(name, error) from error

    def delete(self, name: str) -> None:
        """An object."""
        self._check_owned()
        try:
            delete_object(self._at(name))
        except OSError as error:
            raise JobError(f"{self._at(name)} cannot be deleted: {error.strerror or error}") from error
        self._seen.pop(name, None)

    def differs(self, name: str, *, size_bytes: int, sha256: str) -> str:  # noqa: ARG002 - as every place
        """By the size that was listed: all parts would have to be read otherwise."""
        found = self._seen.get(name) or look_at(self._at(name))
        if found.size_bytes == size_bytes:
            return ""
        return f"it has {found.size_bytes} bytes that are not the {size_bytes} of its receipt"

    def inner(self, name: str) -> "ObjectPlace":
        """A folder in it."""
        return ObjectPlace(self._at(name))

    def folders(self) -> list[str]:
        """Those in it."""
        try:
            _, keys = list_folder(self._address)
        except OSError as error:
            raise JobError(f"{self} cannot be listed: {error.strerror or error}") from error
        return sorted(key.rstrip("/").rpartition("/")[2] for key in keys)

    def _put(self, name: str, data: bytes) -> Found:
        where = self._at(name)
        try:
            return put_object(where, data, replaces=self._seen.get(name))
        except ChangedError:
            found = look_at(where)
            if read_object(where, tag=found.tag) != data:  # guard: batch-object-kept
                raise
            return found  # another that makes the same part, or this job's own, whose answer was lost

    def _check_owned(self) -> None:
        if self._lease is None or not self._lease.held:  # guard: batch-lease-held
            raise JobError(f"this job stood still for so long that another may have begun to write into {self}")

    def _failed(self, name: str, error: OSError) -> JobError:
        return JobError(
            f"{self._at(name)} cannot be written: {error.strerror or error}; complete parts are kept: run again"
        )

    def _at(self, name: str) -> Address:
        below = f"{self._address.key}/{name}" if self._address.key else name
        return Address(self._address.scheme, self._address.host, below)


def open_object_place(text: str) -> ObjectPlace:
    """The place of an address.

    Raises:
        JobError: results cannot be written there.
    """
    address = read_address(text)
    if address.scheme in WEB:
        raise JobError(
            f"--out {text} is a web server's; expected a folder or an object store, like s3://bucket/results"
        )
    return ObjectPlace(address)
