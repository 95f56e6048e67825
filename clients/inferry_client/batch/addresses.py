"""Addresses of what lies elsewhere: `s3://bucket/key`, `gs://…`, `az://…`, `http://…` and `https://…`."""

import re
from dataclasses import dataclass

from inferry_client.batch.errors import JobError

STORES = ("s3", "gs", "az")
WEB = ("http", "https")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_KNOWN = ", ".join(f"{scheme}://" for scheme in (*STORES, *WEB))


@dataclass(frozen=True)
class Address:
    """Of an object, or of what begins with a key.

    Attributes:
        scheme: one of `STORES` and `WEB`.
        host: the bucket or container; of the web, the server.
        key: what follows, as it was written; of an object store it is taken letter by letter.
    """

    scheme: str
    host: str
    key: str

    @property
    def root(self) -> str:
        """Without the key."""
        return f"{self.scheme}://{self.host}"

    @property
    def is_web(self) -> bool:
        """Whether it is read by HTTP, which lists no folders."""
        return self.scheme in WEB

    def __str__(self) -> str:
        return f"{self.root}/{self.key}"


def is_address(text: str) -> bool:
    """Whether a text is an address, of whatever scheme, and no path."""
    return _ADDRESS.fullmatch(text) is not None


def read_address(text: str) -> Address:
    """The address that a text is.

    Raises:
        JobError: its scheme is another, or it names no bucket or server.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or match[1].lower() not in (*STORES, *WEB):
        raise JobError(f"{text[:200]!r} cannot be reached; expected an address that begins with one of {_KNOWN}")
    host, _, key = match[2].partition("/")
    if not host:
        raise JobError(f"{text[:200]!r} names no bucket or server; expected {match[1]}://NAME/...")
    return Address(match[1].lower(), host, key)


def name_of(address: Address) -> str:
    """The last part of an address, without a web server's question."""
    key = address.key.partition("?")[0] if address.is_web else address.key
    return key.rpartition("/")[2]
