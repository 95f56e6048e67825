"""Whether the certificates that clients have shown still hold: a handshake verifies once, connections last for long."""

import math
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from inferry_server.errors import UnauthenticatedError
from inferry_server.security.certificate_dates import earliest_end

AuthContext = Mapping[str, Iterable[bytes]]
"""What gRPC tells of a connection."""

_CERTIFICATE = "x509_pem_cert"  # as gRPC tells of a connection; a session that is taken up again has it too
_MOST_KNOWN = 1024  # certificates; most servers have a few clients


class ClientCertificates:
    """Refuses calls of clients whose certificate has ended since it was verified. Thread-safe; nothing blocks.

    Args:
        wall_clock: seconds since the epoch.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._ends: dict[bytes, float] = {}

    def check(self, auth_context: AuthContext) -> None:
        """Return if a call may be answered.

        Args:
            auth_context: what gRPC tells of the connection.

        Raises:
            UnauthenticatedError: the client's certificate has ended.
        """
        now = self._wall_clock()
        for pem in auth_context.get(_CERTIFICATE, ()):
            if now >= self._end_of(pem):  # guard: client-certificate-ended
                raise UnauthenticatedError("the client's certificate has ended; connect again with one that is valid")

    def _end_of(self, pem: bytes) -> float:
        end = self._ends.get(pem)
        if end is None:
            if len(self._ends) >= _MOST_KNOWN:
                self._ends.clear()
            known = earliest_end(pem)
            end = self._ends[pem] = math.inf if known is None else known
        return end


def end_of_peer(certificate: Mapping[str, Any] | None) -> float:
    """When what `ssl.SSLSocket.getpeercert` tells of ends, in seconds since the epoch; never where there is nothing."""
    return ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else math.inf
