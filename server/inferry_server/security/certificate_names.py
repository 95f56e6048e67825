"""The names in a client's verified certificate, as access policies write them: `CN:ops`, `DNS:ops.test`. Pure."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from inferry_server.security.certificate_zeros import has_zero


class AuthContext(Protocol):
    """What gRPC tells of a connection: values of its properties, by name."""

    def get(self, key: bytes, default: Iterable[bytes], /) -> Iterable[bytes]:
        """The values of a property."""


_CERTIFICATE = b"x509_pem_cert"
_GRPC = {
    b"x509_subject": "subject",
    b"x509_common_name": "CN",
    b"peer_dns": "DNS",
    b"peer_uri": "URI",
    b"peer_email": "email",
    b"peer_ip": "IP",
}
_ASCII = frozenset(("DNS", "URI", "email"))
_PYTHON = {"DNS": "DNS", "URI": "URI", "email": "email", "IP Address": "IP"}
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
    "userId": "UID",
}
_ESCAPED = frozenset(',+"\\<>;')


def names_of(auth_context: AuthContext) -> list[str]:
    """The names in the certificate that gRPC has verified; none without one, or where a name holds a zero character."""
    if any(map(has_zero, auth_context.get(_CERTIFICATE, ()))):  # guard: certificate-zero
        return []
    pairs = (
        (kind, value.decode(errors="replace")) for key, kind in _GRPC.items() for value in auth_context.get(key, ())
    )
    return list(_written(pairs))


def names_of_peer(certificate: Mapping[str, Any] | None) -> list[str]:
    """The same names as `names_of`, read from what `ssl.SSLSocket.getpeercert` returns."""
    if not certificate:
        return []
    parts = certificate.get("subject", ())
    subject = [pair for part in parts for pair in part]
    alternatives = certificate.get("subjectAltName", ())
    texts = [*subject, *((kind, value) for kind, value in alternatives if _PYTHON.get(kind) in _ASCII)]
    if any("\0" in value for _, value in texts):  # guard: http-certificate-zero
        return []
    names = [f"CN:{value}" for name, value in subject if name == "commonName"]
    del names[1:]  # guard: certificate-first-name
    if subject and all(len(part) == 1 and part[0][0] in _SHORT for part in parts):  # gRPC writes others differently
        written = [f"{_SHORT[name]}={_escape(value)}" for name, value in reversed(subject)]
        names.append(f"subject:{','.join(written)}")
    return names + list(_written((_PYTHON[kind], value) for kind, value in alternatives if kind in _PYTHON))


def canonical_ip(text: str) -> str:
    """An IP address in the one spelling in which names are compared: gRPC shortens IPv6, `ssl` does not.

    Raises:
        ValueError: it is no address, or one with a zone, which no certificate has.
    """
    if "%" in text:
        raise ValueError("an address with a zone")
    return str(ipaddress.ip_address(text))


def _written(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names as policies write them.

    Left out are an `IP` that is no address, and names of DNS, URIs and e-mail addresses that are not ASCII. RFC 5280
    forbids both, and gRPC decodes bytes beyond ASCII differently than `ssl` does.
    """
    for kind, value in pairs:
        if kind in _ASCII and not value.isascii():  # guard: certificate-ascii
            continue
        try:
            spelled = canonical_ip(value) if kind == "IP" else value  # guard: certificate-ip
        except ValueError:
            continue
        yield f"{kind}:{spelled}"


def _escape(value: str) -> str:
    """A part of a subject as RFC 2253 writes it."""
    escaped = "".join(
        f"\\{c}" if c in _ESCAPED else c if " " <= c < "\x7f" else "".join(f"\\{byte:02X}" for byte in c.encode())
        for c in value
    )
    if escaped[:1] in (" ", "#"):
        escaped = f"\\{escaped}"
    if len(value) > 1 and value.endswith(" "):
        escaped = f"{escaped[:-1]}\\ "
    return escaped
