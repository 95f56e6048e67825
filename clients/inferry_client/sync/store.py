"""An object store, read only. Addresses and credentials are obstore's: `s3://`, `gs://`, `az://`, `https://`, `file://`."""

from collections.abc import Iterator
from typing import Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from inferry_client.sync.errors import SyncError
from inferry_client.sync.layout import StoredObject
from inferry_proto.foreign_errors import first_line

_PIECE_BYTES = 4 << 20


class Store(Protocol):
    """A folder in an object store. One thread uses it."""

    def objects(self) -> list[StoredObject]:
        """All objects, as they are now.

        Raises:
            SyncError: they cannot be listed.
        """

    def read(self, one: StoredObject) -> Iterator[bytes]:
        """The contents in pieces.

        Raises:
            SyncError: they cannot be read.
        """


class ObjectStore:
    """A store that obstore reads.

    Args:
        url: of the repository's folder.

    Raises:
        SyncError: the address is none that obstore knows.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self._store = from_url(url)
        except (BaseError, ValueError, OSError) as error:
            raise SyncError(f"{url} cannot be opened: {_said(error)}") from error

    def objects(self) -> list[StoredObject]:
        """Listed in pages."""
        try:
            pages = list(obstore.list(self._store))
        except (BaseError, ValueError, OSError) as error:
            raise SyncError(f"{self._url} cannot be listed: {_said(error)}") from error
        return [StoredObject(one["path"], one["size"], one["e_tag"] or "") for page in pages for one in page]

    def read(self, one: StoredObject) -> Iterator[bytes]:
        """Streamed: no object need fit into memory."""
        try:
            for piece in obstore.get(self._store, one.path).stream(min_chunk_size=_PIECE_BYTES):
                yield bytes(piece)
        except (BaseError, ValueError, OSError) as error:
            raise SyncError(f"{self._url}: {one.path} cannot be read: {_said(error)}") from error


def _said(error: Exception) -> str:
    return first_line(error)[:500]
