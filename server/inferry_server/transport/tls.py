"""TLS of a gRPC port, whose certificate, key and client authorities may be exchanged while it serves."""

import ssl
from collections.abc import Callable
from pathlib import Path

import grpc

from inferry_server.errors import StartError
from inferry_server.security.client_authority import ClientAuthority
from inferry_server.security.pem import load_authorities, load_chain
from inferry_server.security.watching import Contents
from inferry_server.telemetry.series import Count


class ServerTls:
    """Certificate, key and client authorities for new connections; open ones keep those with which they began.

    gRPC asks for them at each handshake, on threads of its own; any other thread may call `apply`.

    Args:
        certificate: PEM file with the chain.
        private_key: PEM file with its key.
        client_ca: PEM file with the authorities whose clients are let in; None: everybody is.
        contents: what the files hold, where another process has read them; None: they are read.
        exchanged: called with the authorities that `apply` has put in the place of others.

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
        *,
        exchanged: Callable[[ClientAuthority], object] = lambda _: None,
    ) -> None:
        self._exchanged = exchanged
        self._handshakes = Count()
        self._certificate, self._private_key, self._client_ca = certificate, private_key, client_ca
        settings = {"tls_private_key": private_key, "tls_certificate": certificate, "tls_client_ca": client_ca}
        if contents is None:
            contents = {path: _read(setting, path) for setting, path in settings.items() if path is not None}
        self.paths = tuple(contents)
        self.contents = contents
        self._current = self._shown = self._configuration(contents)

    @property
    def accepted(self) -> int:
        """Connections whose handshakes have begun."""
        return self._handshakes.value

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC listens with."""
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            self._fetch,  # type: ignore[arg-type]  # grpcio's stubs leave None out, which its documentation has
            require_client_authentication=self._client_ca is not None,
        )

    def apply(self, contents: Contents) -> None:
        """Use what the files hold now, from the next handshake on.

        Raises:
            StartError: they cannot be used; what was used before stays in use.
        """
        if contents == self.contents:  # tried again, as another port could not use them
            return
        configuration, authority = self._configuration(contents), self._other_authority(contents)
        self._current = configuration  # guard: certificate-reloaded
        self.contents = contents
        if authority is not None:
            self._exchanged(authority)  # guard: client-authority-exchanged

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration, if it has changed since the last handshake; else None.

        gRPC takes a configuration without a lock: when it was given one at each handshake, it crashed within seconds of
        two threads shaking hands at the same time.
        """
        self._handshakes.inc()
        current = self._current
        if current is self._shown:
            return None
        self._shown = current
        return current

    def _other_authority(self, contents: Contents) -> ClientAuthority | None:
        """The authorities that let clients in, if they are not those of before."""
        client_ca = self._client_ca
        if client_ca is None or contents[client_ca] == self.contents[client_ca]:
            return None
        try:
            return ClientAuthority(contents[self._certificate], contents[self._private_key], contents[client_ca])
        except OSError as error:
            raise _unusable("setting tls_client_ca", str(client_ca), error) from error

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
