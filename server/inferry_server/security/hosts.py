"""Which `Host` headers the HTTP port accepts, so that a page of another site cannot pass for the server's own."""

import ipaddress
import re
from dataclasses import dataclass

_HOST = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::[0-9]*)?")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@dataclass(frozen=True)
class OwnHosts:
    """The hosts that a `Host` header may name.

    The owner of any name can make it point to this machine (DNS rebinding). A browser then takes a page of that name
    and this server for one site: it sends no `Origin` with a GET, and lets the page read the reply. Only `Host` shows
    the other name. An IP address cannot be made to point elsewhere, nor can `localhost` and the names below it
    (RFC 6761).

    Attributes:
        names: further ones, in lower case and without a port; None: any.
    """

    names: frozenset[str] | None = None

    def has(self, host: str) -> bool:
        """Whether a `Host` header, with or without a port, names one of them.

        An empty header does: no browser sends it.
        """
        if self.names is None:
            return True
        read = _HOST.fullmatch(host.strip())
        if read is None:
            return False
        name = (read[1] or read[2] or "").lower().removesuffix(".")
        return name in _USUAL or name in self.names or name.endswith(".localhost") or _is_ip(name)


def read_hosts(text: str) -> frozenset[str]:
    """Names of hosts, separated by commas.

    Raises:
        ValueError: something else than names without ports.
    """
    names = frozenset(part.strip().lower().removesuffix(".") for part in text.split(","))
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"expected names without ports, separated by commas, not {text!r}")
    return names


def refusal(host: str) -> str:
    """The message for a client that asks for another host."""
    return (
        f"this server is not {host[:_LONGEST]!r}: expected localhost, an IP address or a name of setting http_hosts "
        "in the Host header"
    )


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_LONGEST = 200
_USUAL = ("", "127.0.0.1", "localhost")  # known here, as `_is_ip` takes some microseconds
