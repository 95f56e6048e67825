"""Gives PEM texts to `ssl`, which reads certificates and keys from files only."""

import binascii
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def certificates_in(pem: bytes) -> Iterator[bytes]:
    """DER of each certificate in a PEM text; one that is no base64 is left out."""
    for match in _CERTIFICATE.finditer(pem):
        try:
            yield binascii.a2b_base64(match[1])
        except ValueError:
            continue


def load_chain(context: ssl.SSLContext, certificate: bytes, private_key: bytes) -> None:
    """Have a TLS context present a certificate.

    Raises:
        OSError: they are no certificate and its key (`ssl.SSLError`).
        ValueError: the key is encrypted.
    """
    with _as_file(certificate) as chain, _as_file(private_key) as key:
        context.load_cert_chain(chain, key, password=lambda: "")


def load_authorities(context: ssl.SSLContext, authorities: bytes) -> None:
    """Have a TLS context verify certificates by these authorities.

    Raises:
        OSError: they are none (`ssl.SSLError`).
    """
    with _as_file(authorities) as path:
        context.load_verify_locations(path)


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """The path of a file with these bytes that exists only in memory: a key must not be written to a disk."""
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
