"""TLS of a gRPC port, whose certificate, key and client authorities may be exchanged while it serves."""

import ssl
from pathlib import Path

import grpc

from inferry_server.errors import StartError
from inferry_server.security.watching import Contents


class ServerTls:
    """What new connections are shown; those that are open keep what they were shown.

    gRPC asks for it at each handshake, on threads of its own; `apply` may be called by any other.

    Args:
        certificate: PEM file with the chain.
        private_key: PEM file with its key.
        client_ca: PEM file with the authorities whose clients are let in; None: everybody is.

    Attributes:
        paths: of the files.
        contents: what they held when they were read first.

    Raises:
        StartError: a file cannot be read, or is not what it should be.
    """

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None) -> None:
        self._certificate, self._private_key, self._client_ca = certificate, private_key, client_ca
        settings = {"tls_private_key": private_key, "tls_certificate": certificate, "tls_client_ca": client_ca}
        read = {path: _read(setting, path) for setting, path in settings.items() if path is not None}
        self.paths = tuple(read)
        self.contents: Contents = read
        self._current = self._configuration(read)
        self._shown = self._current

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

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What has changed since the last handshake; None: nothing."""
        current = self._current
        if current is self._shown:
            return None
        self._shown = current
        return current

    def _configuration(self, contents: Contents) -> grpc.ServerCertificateConfiguration:
        _check_files(self._certificate, self._private_key, self._client_ca)
        return grpc.ssl_server_certificate_configuration(
            [(contents[self._private_key], contents[self._certificate])],
            root_certificates=None if self._client_ca is None else contents[self._client_ca],
        )


def _check_files(certificate: Path, private_key: Path, client_ca: Path | None) -> None:
    """See that the files are what they should be: gRPC would only say that the address cannot be bound."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, private_key, password=lambda: "")  # guard: tls-files
    except (OSError, ValueError) as error:
        raise _unusable(
            "settings tls_certificate and tls_private_key", f"{certificate} and {private_key}", error
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ValueError) as error:
            raise _unusable("setting tls_client_ca", str(client_ca), error) from error


def _unusable(settings: str, paths: str, error: Exception) -> StartError:
    return StartError(f"{settings}: {paths} cannot be used for TLS: {error}; expected PEM files, the key not encrypted")


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"setting {setting}: {path} cannot be read ({error.strerror})") from error
