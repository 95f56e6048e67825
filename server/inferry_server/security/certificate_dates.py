"""When certificates end, read from their PEM text. Pure; Python's `ssl` tells it of no file."""

from datetime import datetime

from inferry_server.security.pem import certificates_in

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _EXPLICIT_VERSION = 0x30, 0x17, 0x18, 0xA0
_LONG_FORM, _LENGTH_BITS, _MOST_LENGTH_BYTES = 0x80, 0x7F, 4


def earliest_end(pem: bytes) -> float | None:
    """When the first of the certificates in a PEM file ends, in seconds since the epoch.

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
    _, certificate, _ = _element(der)
    _, fields, _ = _element(certificate)
    tag, _, rest = _element(fields)
    for _ in range(3 if tag == _EXPLICIT_VERSION else 2):  # serial number, signature, issuer
        _, _, rest = _element(rest)
    tag, validity, _ = _element(rest)
    if tag != _SEQUENCE:
        raise ValueError("no validity")
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("no time")
    if tag == _UTC_TIME:
        return datetime.strptime(text.decode("ascii"), "%y%m%d%H%M%S%z").timestamp()  # a Z at the end is UTC
    return datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%S%z").timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element of DER bytes: its tag, its contents, and what follows it.

    Raises:
        ValueError: it is cut off.
        IndexError: likewise.
    """
    tag, length, start = data[0], data[1], 2
    if length & _LONG_FORM:
        count = length & _LENGTH_BITS
        if not 0 < count <= _MOST_LENGTH_BYTES:
            raise ValueError("a length that certificates have not")
        start += count
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("cut off")
    return tag, data[start : start + length], data[start + length :]
