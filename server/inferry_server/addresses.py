"""Addresses as settings spell them: HOST:PORT."""

from dataclasses import dataclass

_LARGEST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """A host and a port; port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
