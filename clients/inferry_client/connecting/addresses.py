"""Where servers are: what callers may write, and what gRPC is told."""

import ipaddress
import re
from collections.abc import Sequence

from inferry_client.errors import InvalidRequestError

DEFAULT_SERVER = "127.0.0.1:8001"

_LISTS = ("ipv4:", "ipv6:")  # gRPC's schemes that carry several addresses, separated by commas
_SCHEMES = ("unix:", "unix-abstract:", "dns:", "xds:")
_HOST_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/,]+):(?P<port>\d{1,5})", re.ASCII)


def parse_servers(servers: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses of servers, each once, in the order written.

    Args:
        servers: `HOST:PORT`; several as a sequence or separated by commas (also after `ipv4:` or
            `ipv6:`); or one of gRPC's names: `dns:///HOST:PORT`, `unix:PATH`.

    Raises:
        InvalidRequestError: none, or one that is no address.
    """
    written = [servers] if isinstance(servers, str) else list(servers)
    found: dict[str, None] = {}
    for text in written:
        if not isinstance(text, str):
            raise InvalidRequestError(f"{text!r} is not a server's address; expected text, like 127.0.0.1:8001")
        parts = [text] if text.startswith(_SCHEMES) else _without_list_scheme(text).split(",")
        for part in parts:
            find_host(part.strip())
            found[part.strip()] = None
    if not found:
        raise InvalidRequestError("no server is named; expected HOST:PORT, like 127.0.0.1:8001")
    return tuple(found)


def find_host(address: str) -> str:
    """The host of an address; empty for gRPC's own schemes (`unix:`, `dns:`).

    Raises:
        InvalidRequestError: neither HOST:PORT nor one of those.
    """
    if address.startswith(_SCHEMES):
        return ""
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise InvalidRequestError(f"{address!r} is not a server's address; expected HOST:PORT, like 127.0.0.1:8001")
    return match["host"].strip("[]")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own, which no proxy can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_several(address: str) -> bool:
    """Whether gRPC may find several servers behind one address."""
    return address.startswith("dns:")


def _without_list_scheme(text: str) -> str:
    return next((text.removeprefix(scheme) for scheme in _LISTS if text.startswith(scheme)), text)
