"""TLS of the HTTP port: the certificate that gRPC has."""

import ssl
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferry_server.errors import StartError
from inferry_server.security.pem import load_authorities, load_chain
from inferry_server.security.watching import Contents, read_files


class HttpTls:
    """The certificate that new connections are shown; `reload` may be called by any thread while others connect.

    Args:
        certificate: PEM file with the chain.
        private_key: PEM file with its key.
        client_ca: PEM file with the authorities of clients; None: none is asked for a certificate.
        refused: called for every handshake that fails, whichever side gives it up with an alert.

    Attributes:
        context: of the listening socket.

    Raises:
        StartError: a file cannot be read, or is not what it should be.
    """

    def __init__(
        self,
        certificate: Path,
        private_key: Path,
        client_ca: Path | None,
        refused: Callable[[], object] = lambda: None,
    ) -> None:
        self._certificate, self._private_key, self._client_ca = certificate, private_key, client_ca
        try:
            contents = read_files([path for path in (certificate, private_key, client_ca) if path is not None])
        except OSError as error:
            raise self._unusable(error) from error
        self._authorities = None if client_ca is None else contents[client_ca]
        self._trusting = weakref.WeakSet[ssl.SSLContext]()  # that verified by the authorities of now
        self._current, self.context = self._context(contents), self._context(contents)
        self._trusting.update((self._current, self.context))
        self.context.sslobject_class = _telling(refused)  # of this context alone
        self.context.sni_callback = self._show

    def apply(self, contents: Contents) -> None:
        """Show what the files hold now.

        Raises:
            StartError: they cannot be used; what was shown before is shown on.
        """
        current = self._context(contents)
        authorities = None if self._client_ca is None else contents[self._client_ca]
        if authorities != self._authorities:
            self._authorities, self._trusting = authorities, weakref.WeakSet()
        self._trusting.add(current)
        self._current = current

    def trusts(self, connection: ssl.SSLObject) -> bool:
        """Whether the client of a connection was verified by the authorities that let clients in now."""
        return connection.context in self._trusting  # guard: http-authority-gone

    def _context(self, contents: Contents) -> ssl.SSLContext:
        """Encrypts connections. A client's certificate is verified where one comes; health checks have none.

        Where certificates are verified, TLS is 1.3: in 1.2 OpenSSL keeps sessions, and a client that takes one up again
        is not verified again, not against an authority that was exchanged since.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            load_chain(context, contents[self._certificate], contents[self._private_key])
            if self._client_ca is not None:
                load_authorities(context, contents[self._client_ca])
                context.verify_mode = ssl.CERT_OPTIONAL
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.num_tickets = 0  # guard: http-no-sessions
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error
        return context

    def _unusable(self, error: Exception) -> StartError:
        return StartError(
            f"TLS for HTTP cannot be set up from {self._certificate}, {self._private_key}"
            + (f" and {self._client_ca}" if self._client_ca else "")
            + f": {error}"
        )

    def _show(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current  # guard: http-certificate-reloaded


def _telling(refused: Callable[[], object]) -> type[ssl.SSLObject]:
    """Connections that tell when their handshake fails; asyncio tells nobody. Who cannot be read has no certificate."""

    class Telling(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError:
                refused()  # guard: http-handshakes-counted
                raise

        def getpeercert(self, binary_form: bool = False) -> Any:
            try:
                return super().getpeercert(binary_form)
            except (ValueError, ssl.SSLError):  # guard: http-certificate-unreadable
                return None  # or asyncio logs a traceback for each such connection

    return Telling
