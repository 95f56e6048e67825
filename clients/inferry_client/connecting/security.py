"""Who the server is, and who the caller is: TLS, client certificates, bearer tokens."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from inferry_client.errors import InvalidRequestError, InvalidSettingError
from inferry_client.limits import check_kind

ENVIRONMENT = {
    "ca": "INFERRY_CA",
    "certificate": "INFERRY_CERTIFICATE",
    "private_key": "INFERRY_PRIVATE_KEY",
    "token": "INFERRY_TOKEN",
    "server_name": "INFERRY_SERVER_NAME",
}
"""The variable that stands for each field of `Security`; INFERRY_TLS=1 is `tls`."""

_OF_TLS = ("ca", "certificate", "private_key", "server_name")


@dataclass(frozen=True)
class Security:
    """How a client and a server know each other. Files are read when a channel opens.

    Attributes:
        tls: encrypt; None: where another field than `token` is set. False goes with none of those.
        ca: PEM file of the authorities that servers' certificates come from; None: those gRPC brings.
        certificate: PEM file with the client's certificate chain.
        private_key: PEM file with its key.
        token: sent as `authorization: Bearer TOKEN` with every call.
        server_name: the name that the server's certificate must have, where it is not the address's.
    """

    tls: bool | None = None
    ca: str | Path | None = None
    certificate: str | Path | None = None
    private_key: str | Path | None = None
    token: str | None = field(default=None, repr=False)  # a secret, which no log shall hold
    server_name: str | None = None

    def __post_init__(self) -> None:
        check_kind("tls", self.tls, (bool, type(None)), "True, False or None")
        for name in ("ca", "certificate", "private_key"):
            check_kind(name, getattr(self, name), (str, Path, type(None)), "the path of a PEM file")
        check_kind("server_name", self.server_name, (str, type(None)), "text")
        if not isinstance(self.token, (str, type(None))):
            raise InvalidSettingError(f"token is of {type(self.token).__name__}; expected text")
        if (self.certificate is None) != (self.private_key is None):
            given, missing = ("certificate", "private_key") if self.certificate else ("private_key", "certificate")
            raise InvalidRequestError(f"{given} is set and {missing} is not; a client certificate needs both")
        needing = [name for name in _OF_TLS if getattr(self, name) is not None]
        if self.tls is False and needing:
            raise InvalidRequestError(f"tls is False, and {needing[0]}, which needs TLS, is set; expected one of them")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise InvalidRequestError("token holds what a header cannot carry; expected printable ASCII")

    @property
    def encrypted(self) -> bool:
        """Whether connections use TLS."""
        return bool(self.tls or any((self.ca, self.certificate, self.server_name)))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("authorization", f"Bearer {self.token.strip()}"),) if self.token else ()

    def credentials(self) -> grpc.ChannelCredentials | None:
        """The credentials that gRPC takes; None for connections in the clear.

        Raises:
            InvalidRequestError: a file that cannot be read or is no PEM.
        """
        if not self.encrypted:
            return None
        return grpc.ssl_channel_credentials(
            _read_pem("ca", self.ca, "CERTIFICATE"),
            _read_pem("private_key", self.private_key, "PRIVATE KEY"),
            _read_pem("certificate", self.certificate, "CERTIFICATE"),
        )


NO_SECURITY = Security()


def security_from_environment(given: Security, environment: Mapping[str, str] | None = None) -> Security:
    """What was given, and the environment's for what was not. `tls=False` leaves out all that needs TLS."""
    variables = os.environ if environment is None else environment
    left_out = _OF_TLS if given.tls is False else ()  # guard: client-tls-off
    values = {
        field: getattr(given, field) if getattr(given, field) is not None else (variables.get(name) or None)
        for field, name in ENVIRONMENT.items()
        if field not in left_out
    }
    tls = _truth("INFERRY_TLS", variables.get("INFERRY_TLS", "")) or None if given.tls is None else given.tls
    return Security(tls=tls, **values)


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("", "0", "false", "no", "1", "true", "yes"):
        raise InvalidRequestError(f"{name} is {text!r}; expected 1 or 0")
    return text.lower() in ("1", "true", "yes")


def _read_pem(field: str, path: str | Path | None, kind: str) -> bytes | None:
    if path is None:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{field} {path} cannot be read: {error.strerror}") from error
    if b"-----BEGIN" not in data or kind.encode() not in data:
        raise InvalidRequestError(f"{field} {path} holds no {kind}; expected a PEM file")
    return data
