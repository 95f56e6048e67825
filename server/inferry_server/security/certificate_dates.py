"""When certificates expire, read from their PEM text: Python's `ssl` tells it only of a peer's certificate. Pure."""

from datetime import datetime

from inferry_server.security.der import element
from inferry_server.security.pem import certificates_in

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _EXPLICIT_VERSION = 0x30, 0x17, 0x18, 0xA0


def earliest_end(pem: bytes) -> float | None:
    """When the first of the certificates in a PEM file expires, in seconds since the epoch.

    Returns:
        None where the file holds no certificate that can be read.
    """
    ends = []
    for der in certificates_in(pem):
        try:
            ends.append(_end(der))
        except (ValueError, IndexError):
            continue
    return min(ends, default=None)


def _end(der: bytes) -> float:
    """`notAfter` of one certificate (RFC 5280): Certificate, tbsCertificate, its fifth field or, with a version, sixth.

    Raises:
        ValueError: these bytes are no certificate.
    """
    _, certificate, _ = element(der)
    _, fields, _ = element(certificate)
    tag, _, rest = element(fields)
    for _ in range(3 if tag == _EXPLICIT_VERSION else 2):  # serial number, signature, issuer
        _, _, rest = element(rest)
    tag, validity, _ = element(rest)
    if tag != _SEQUENCE:
        raise ValueError("no validity")
    _, _, rest = element(validity)
    tag, text, _ = element(rest)
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("no time")
    if tag == _UTC_TIME:
        return datetime.strptime(text.decode("ascii"), "%y%m%d%H%M%S%z").timestamp()  # a Z at the end is UTC
    return datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%S%z").timestamp()
