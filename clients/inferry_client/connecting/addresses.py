"""Where servers are: what callers may write, and what gRPC is told."""

import ipaddress
import re
from collections.abc import Sequence

from inferry_client.errors import InvalidRequestError
from inferry_client.limits import check_kind

DEFAULT_SERVER = "127.0.0.1:8001"

_LISTS = ("ipv4:", "ipv6:")  # gRPC's schemes that carry several addresses, separated by commas
_SCHEMES = ("unix:", "unix-abstract:", "dns:", "xds:")
_OWN_COMMAS = ("unix:", "unix-abstract:", "xds:")  # names that may have one
_HOST_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+(%[\w.-]+)?\]|[^\s:/,\[\]]+):(?P<port>\d{1,5})", re.ASCII)
_DNS = re.compile(r"dns:(//(?P<authority>[^/]*)/)?(?P<target>[^/]+)")
_OTHERS = re.compile(r"(unix|unix-abstract|xds):(?!//[^/]*/?$).+")


def parse_servers(servers: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses of servers, each once, in the order written.

    Args:
        servers: `HOST:PORT`; several as a sequence or separated by commas (also after `ipv4:` or
            `ipv6:`); or gRPC's names: `dns:///HOST:PORT`, `unix:PATH`.

    Raises:
        InvalidRequestError: none, or one that is no address.
    """
    check_kind("address", servers, (str, list, tuple), "text like 127.0.0.1:8001, or a list of such")
    written = [servers] if isinstance(servers, str) else list(servers)
    found: dict[str, None] = {}
    for text in written:
        if not isinstance(text, str):
            raise InvalidRequestError(f"{text!r} is not a server's address; expected text, like 127.0.0.1:8001")
        name = text.strip()
        parts = [name] if name.startswith(_OWN_COMMAS) else _without_list_scheme(name).split(",")
        for part in map(str.strip, parts):
            find_host(part)
            found[part] = None
    if not found:
        raise InvalidRequestError("no server is named; expected HOST:PORT, like 127.0.0.1:8001")
    return tuple(found)


def find_host(address: str) -> str:
    """The host of an address; empty for gRPC's own schemes (`unix:`, `dns:`).

    Raises:
        InvalidRequestError: neither HOST:PORT nor one of those.
    """
    if address.startswith("dns:"):
        named = _DNS.fullmatch(address)
        if named is None or _host_of(named["target"]) is None or _authority_is_wrong(named["authority"]):
            raise InvalidRequestError(f"{address!r} is not a server's address; expected dns:///HOST:PORT")
        return ""
    if address.startswith(_SCHEMES):
        if not _OTHERS.fullmatch(address):
            raise InvalidRequestError(f"{address!r} names nothing; expected unix:PATH or xds:///NAME")
        return ""
    host = _host_of(address)
    if host is None:
        raise InvalidRequestError(f"{address!r} is not a server's address; expected HOST:PORT, like 127.0.0.1:8001")
    return host


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own, which no proxy can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_several(address: str) -> bool:
    """Whether gRPC may find several servers behind one address."""
    return address.startswith("dns:")


def _host_of(text: str) -> str | None:
    match = _HOST_PORT.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        return None
    host: str = match["host"]
    return host.strip("[]") if not host.startswith("[") or _is_ipv6(host.strip("[]")) else None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _authority_is_wrong(text: str | None) -> bool:
    return bool(text) and _host_of(str(text)) is None


def _without_list_scheme(text: str) -> str:
    return next((text.removeprefix(scheme) for scheme in _LISTS if text.startswith(scheme)), text)
