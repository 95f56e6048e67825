"""How many connections came over TLS, and how many of them had a call: gRPC tells of no handshake that fails."""

from collections.abc import Callable

from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.transport.tls import ServerTls


class TlsConnections:
    """Reports the TLS connections that have come since the last report. One thread calls `look`.

    gRPC asks `ServerTls` as each handshake begins, and says nothing when it fails. Only a connection whose handshake
    went well has calls; with mutual TLS the server knows a connection from its first one on.

    Args:
        tls: of the port.
        certificates: of clients; None: they show none, and no connection is known.
        told: with the connections that were accepted, and those that had their first call.
    """

    def __init__(
        self, tls: ServerTls, certificates: ClientCertificates | None, told: Callable[[int, int], object]
    ) -> None:
        self._tls = tls
        self._certificates = certificates
        self._told = told
        self._accepted = self._used = 0

    def look(self) -> None:
        """Report, if there is anything."""
        used = 0 if self._certificates is None else self._certificates.connections
        accepted = self._tls.accepted
        if accepted > self._accepted or used > self._used:
            self._told(accepted - self._accepted, used - self._used)  # guard: tls-connections-told
        self._accepted, self._used = accepted, used
