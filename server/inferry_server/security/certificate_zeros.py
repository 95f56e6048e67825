"""Whether a certificate's names hold zero characters: gRPC passes such a name to Python cut off at the zero.

If an authority signed `ops.test<zero>.of.somebody.test` for a client, the server would take that client for `ops.test`.
Pure.
"""

from collections.abc import Iterator

from inferry_server.security.der import element, elements
from inferry_server.security.pem import certificates_in

_EXPLICIT_VERSION, _EXTENSIONS = 0xA0, 0xA3
_ALTERNATIVE_NAMES = b"\x55\x1d\x11"  # 2.5.29.17, RFC 5280 section 4.2.1.6
_EMAIL, _DNS, _URI = 0x81, 0x82, 0x86
_BIT_STRING, _UNIVERSAL, _BMP = 0x03, 0x1C, 0x1E
_WIDTHS = {_UNIVERSAL: 4, _BMP: 2}  # bytes of a character; in other kinds of text, one


def has_zero(pem: bytes) -> bool:
    """Whether the subject, or one of its alternatives, holds a zero character.

    Args:
        pem: of one certificate. One that cannot be read counts as holding a zero: its names cannot be relied on either.
    """
    for der in certificates_in(pem):
        try:
            return any(_has_zero(tag, text) for tag, text in _names(der))
        except (ValueError, IndexError):
            return True  # guard: certificate-unreadable
    return False


def _has_zero(tag: int, text: bytes) -> bool:
    width = _WIDTHS.get(tag, 1)
    return bytes(width) in (text[at : at + width] for at in range(0, len(text), width))


def _names(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The texts of the subject and of its alternatives, each with its tag (RFC 5280, section 4.1)."""
    _, certificate, _ = element(der)
    _, signed, _ = element(certificate)
    fields = [field for field in elements(signed) if field[0] != _EXPLICIT_VERSION]
    _, subject = fields[4]  # after the serial number, the signature's algorithm, the issuer, and the validity
    for _, part in elements(subject):
        for _, attribute in elements(part):
            _, (tag, text) = elements(attribute)
            if tag != _BIT_STRING:
                yield tag, text
    for tag, extensions in fields[5:]:
        if tag == _EXTENSIONS:
            for _, extension in elements(element(extensions)[1]):
                (_, kind), *_, (_, value) = elements(extension)
                if kind == _ALTERNATIVE_NAMES:
                    yield from (one for one in elements(element(value)[1]) if one[0] in (_EMAIL, _DNS, _URI))
