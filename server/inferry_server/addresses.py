"""Addresses as settings spell them: HOST:PORT, and for gRPC unix:PATH too."""

import ipaddress
import socket
from dataclasses import dataclass, replace
from typing import TypeVar

from inferry_server.errors import StartError

_LARGEST_PORT = 65535
_PATH, _ABSTRACT = "unix", "unix-abstract"
_LONGEST_PATH = 107  # bytes; with what ends it or, for a name, begins it, all that the system has room for


@dataclass(frozen=True)
class Address:
    """A host and a port; port 0 asks the system for a free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    """A Unix domain socket, spelled as gRPC's clients do.

    Attributes:
        scheme: `unix`, a path; or `unix-abstract`, a name that is no file.
        path: of the socket, or its name.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}"

    def is_answered(self) -> bool:
        """Whether somebody listens there now. gRPC would take the place of a file that is there already."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path if self.scheme == _PATH else f"\0{self.path}") == 0


AnyAddress = Address | UnixAddress
A = TypeVar("A", bound=AnyAddress)


def bound(address: A, port: int) -> A:
    """The address that was bound, where port 0 asked for any."""
    return replace(address, port=port) if isinstance(address, Address) else address


def parse_any_address(text: str) -> AnyAddress:
    """Read `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`, `unix:///PATH` or `unix-abstract:NAME`.

    Raises:
        ValueError: anything else.
    """
    scheme, _, path = text.partition(":")
    if scheme not in (_PATH, _ABSTRACT):
        return parse_address(text)
    if scheme == _PATH and path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise ValueError(f"expected an absolute path after unix://, like unix:///run/inferry.sock, not {text!r}")
    if not path or len(path.encode(errors="surrogateescape")) > _LONGEST_PATH or "\0" in path:
        raise ValueError(f"expected a path of 1 to {_LONGEST_PATH} bytes, like unix:/run/inferry.sock, not {text!r}")
    return UnixAddress(scheme, path)


def parse_address(text: str) -> Address:
    """Read `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        ValueError: anything else.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or (":" in host and not bracketed):
        raise ValueError(f"expected HOST:PORT, like 127.0.0.1:8001, not {text!r}")
    if int(port) > _LARGEST_PORT:
        raise ValueError(f"expected a port between 0 and {_LARGEST_PORT}, not {port}")
    return Address(host[1:-1] if bracketed else host, int(port))


def http_not_bound(address: Address, error: OSError) -> StartError:
    """The error for an address that HTTP cannot have, with or without its extra."""
    return StartError(
        f"HTTP address {address} cannot be bound ({error.strerror}); free the port or choose another with "
        "--http-address"
    )
