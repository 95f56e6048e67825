"""TLS of a gRPC port, whose certificate, key and client authorities may be exchanged while it serves."""

import math
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from inferry_server.errors import StartError
from inferry_server.security.pem import load_authorities, load_chain
from inferry_server.security.watching import Contents

# A session can be taken up again only in the TLS context that began it. gRPC keeps one until it is given another
# configuration, for days, and does not verify a client's certificate again that has ended meanwhile. A context is made
# in a millisecond, and kept by its connections.
_LONGEST_SESSION_S = 60.0


class ServerTls:
    """What new connections are shown; those that are open keep what they were shown.

    gRPC asks for it at each handshake, on threads of its own; `apply` may be called by any other.

    Args:
        certificate: PEM file with the chain.
        private_key: PEM file with its key.
        client_ca: PEM file with the authorities whose clients are let in; None: everybody is.
        contents: what the files hold, where another process has read them; None: they are read.
        clock: monotonic seconds.

    Attributes:
        paths: of the files.
        contents: what they held when it was applied last.

    Raises:
        StartError: a file cannot be read, or is not what it should be.
    """

    def __init__(
        self,
        certificate: Path,
        private_key: Path,
        client_ca: Path | None,
        contents: Contents | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._certificate, self._private_key, self._client_ca = certificate, private_key, client_ca
        self._clock = clock
        settings = {"tls_private_key": private_key, "tls_certificate": certificate, "tls_client_ca": client_ca}
        if contents is None:
            contents = {path: _read(setting, path) for setting, path in settings.items() if path is not None}
        self.paths = tuple(contents)
        self.contents = contents
        self._current = self._shown = self._configuration(contents)
        self._shown_until = self._end_of_sessions()

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC listens with."""
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            self._fetch,  # type: ignore[arg-type]  # grpcio's stubs leave None out, which its documentation has
            require_client_authentication=self._client_ca is not None,
        )

    def apply(self, contents: Contents) -> None:
        """Show what the files hold now, from the next handshake on.

        Raises:
            StartError: they cannot be used; what was shown before is shown on.
        """
        self._current = self._configuration(contents)  # guard: certificate-reloaded
        self.contents = contents

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What the next handshakes are to begin with, sessions included; None: what those before began with."""
        current = self._current
        if current is self._shown and self._clock() < self._shown_until:  # guard: grpc-sessions-end
            return None
        self._shown, self._shown_until = current, self._end_of_sessions()
        return current

    def _end_of_sessions(self) -> float:
        """Until when sessions that begin now may be taken up again; without limit where no client is verified."""
        return math.inf if self._client_ca is None else self._clock() + _LONGEST_SESSION_S

    def _configuration(self, contents: Contents) -> grpc.ServerCertificateConfiguration:
        self._check(contents)
        return grpc.ssl_server_certificate_configuration(
            [(contents[self._private_key], contents[self._certificate])],
            root_certificates=None if self._client_ca is None else contents[self._client_ca],
        )

    def _check(self, contents: Contents) -> None:
        """See that the files are what they should be: gRPC would only say that the address cannot be bound."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, private_key, client_ca = self._certificate, self._private_key, self._client_ca
        try:
            load_chain(context, contents[certificate], contents[private_key])  # guard: tls-files
        except (OSError, ValueError) as error:
            raise _unusable(
                "settings tls_certificate and tls_private_key", f"{certificate} and {private_key}", error
            ) from error
        if client_ca is not None:
            try:
                load_authorities(context, contents[client_ca])
            except (OSError, ValueError) as error:
                raise _unusable("setting tls_client_ca", str(client_ca), error) from error


def _unusable(settings: str, paths: str, error: Exception) -> StartError:
    return StartError(f"{settings}: {paths} cannot be used for TLS: {error}; expected PEM files, the key not encrypted")


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"setting {setting}: {path} cannot be read ({error.strerror})") from error
