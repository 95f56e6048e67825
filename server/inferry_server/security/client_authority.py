"""Verifies a client's certificate, without its key, by authorities that are newer than the client's connection.

Python's `ssl` verifies certificates only during a handshake. So this module plays the beginning of one, in memory and
in TLS 1.2, where certificates are not encrypted: the client's hello, the server's request for a certificate, and the
certificate. OpenSSL verifies the certificate at this point, before it asks for a proof that the client has the key. The
client gave that proof in the handshake of its connection.
"""

import base64
import ssl
from collections.abc import Iterator, Sequence

from inferry_server.security.pem import load_authorities, load_chain

# A certificate that was signed with its own key, which was not kept.
_STRANGER = base64.b64decode(
    "MIIBITCByQIUS9HAvRkf+sXB40goAFtQUQ1RJsIwCgYIKoZIzj0EAwIwEzERMA8GA1UEAwwIc3RyYW5nZXIwIBcNMjYxMTI4MDIxNDMzWhgPMjEyNjExMDQw"
    "MjE0MzNaMBMxETAPBgNVBAMMCHN0cmFuZ2VyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE1nTgJ74JX9C6OY7KoL5ymxWjm4ZPy8yp/ppqvq06GdaRPx3Y"
    "B6IZ0Ji7giuGAE5eVPHH8uRfhICqrC7bEYb1QTAKBggqhkjOPQQDAgNHADBEAiBbDIuekrlb0tXwpUb9RizEFiI8mQxaWIAOsiwpwWqyVAIgUyOIyJF50OIh"
    "UhckO9zc1cR67JkZi/b/gM2+dQjdUtw="
)
# gRPC has decided which keys and algorithms it takes. Only the issuer is verified here, so OpenSSL must take all.
_CIPHERS = "DEFAULT:@SECLEVEL=0"
_CERTIFICATE_MESSAGE, _HANDSHAKE_RECORD, _LARGEST_RECORD = b"\x0b", b"\x16\x03\x03", 1 << 14  # RFC 5246, 6.2.1, 7.4


class ClientAuthority:
    """Verifies clients' certificates as a server does in a handshake. Thread-safe; takes about a millisecond of CPU.

    Args:
        certificate: PEM of the server's own, which every handshake needs.
        private_key: PEM of its key.
        authorities: PEM of those whose clients are let in.

    Raises:
        OSError: they cannot be used (`ssl.SSLError`), or this OpenSSL verifies certificates later in a handshake.
        ValueError: the key is encrypted.
    """

    def __init__(self, certificate: bytes, private_key: bytes, authorities: bytes) -> None:
        self._context = _context(ssl.PROTOCOL_TLS_SERVER)
        load_chain(self._context, certificate, private_key)
        load_authorities(self._context, authorities)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # another authority may have issued this one
        self._hello = _hello()
        if not _goes_on(self._handshake(ssl.MemoryBIO())):  # guard: authority-asks
            raise ssl.SSLError("OpenSSL does not ask for a client's certificate in TLS 1.2 with the server's own")
        if self.vouches_for([_STRANGER]):  # guard: authority-verifies
            raise ssl.SSLError("OpenSSL does not verify a client's certificate as it comes")

    def vouches_for(self, chain: Sequence[bytes]) -> bool:
        """Whether a certificate is valid now, and these authorities have issued it.

        Args:
            chain: DER of the certificate, then of those between it and an authority.
        """
        incoming = ssl.MemoryBIO()
        handshake = self._handshake(incoming)
        if not _goes_on(handshake):
            return False
        for record in _records(chain):
            incoming.write(record)
        return _goes_on(handshake)

    def _handshake(self, incoming: ssl.MemoryBIO) -> ssl.SSLObject:
        """A handshake that has got a client's hello; the caller writes further records of the client to `incoming`."""
        incoming.write(self._hello)
        return self._context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    return context


def _hello() -> bytes:
    """The first message of a client."""
    outgoing = ssl.MemoryBIO()
    handshake = _context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="server")
    _goes_on(handshake)
    return outgoing.read()


def _goes_on(handshake: ssl.SSLObject) -> bool:
    """Whether a handshake has accepted all that has come, and waits for more. Its own messages are not sent."""
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        return True
    except ssl.SSLError:
        return False
    return False


def _records(chain: Sequence[bytes]) -> Iterator[bytes]:
    """The TLS records of a client's message `Certificate`."""
    message = _CERTIFICATE_MESSAGE + _sized(_sized(b"".join(map(_sized, chain))))
    for start in range(0, len(message), _LARGEST_RECORD):
        part = message[start : start + _LARGEST_RECORD]
        yield _HANDSHAKE_RECORD + len(part).to_bytes(2, "big") + part


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data
