"""Elements of DER, the encoding of certificates (X.690). Pure."""

from collections.abc import Iterator

_LONG_FORM, _LENGTH_BITS, _MOST_LENGTH_BYTES = 0x80, 0x7F, 4


def element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element of DER bytes: its tag, its contents, and what follows it.

    Raises:
        ValueError: it is cut off, or longer than any in a certificate.
        IndexError: there is not even a tag and a length.
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


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the contents of each element, one after another.

    Raises:
        ValueError: as `element` does.
        IndexError: as `element` does.
    """
    while data:
        tag, contents, data = element(data)
        yield tag, contents
