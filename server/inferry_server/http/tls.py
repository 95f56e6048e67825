"""TLS of the HTTP port: the certificate that gRPC has."""

import ssl
from pathlib import Path

from inferry_server.errors import StartError


def tls_context(certificate: Path, private_key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """Encrypts connections. A client's certificate is verified where one comes; health checks have none.

    Raises:
        StartError: a file cannot be read, or is not what it should be.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, private_key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        raise StartError(
            f"TLS for HTTP cannot be set up from {certificate}, {private_key}"
            + (f" and {client_ca}" if client_ca else "")
            + f": {error}"
        ) from error
    return context
