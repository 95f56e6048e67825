"""Fields of protobuf messages, read one after the other without a schema: what is large is passed over."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_MOST_BYTES = 10


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        value: of a number, its bits; 0 where it has a content.
        content: of a text, a message or packed numbers; None of a number.
    """

    number: int
    value: int
    content: bytes | None


def fields(data: bytes) -> Iterator[Field]:
    """Every field of a message, in its order.

    Raises:
        ValueError: the bytes are no message.
    """
    position = 0
    while position < len(data):
        tag, position = varint(data, position)
        if tag & 7 == _LENGTH_DELIMITED:
            size, position = varint(data, position)
            if position + size > len(data):
                raise ValueError("a field is longer than its message")
            yield Field(tag >> 3, 0, data[position : position + size])
            position += size
        elif tag & 7 == _VARINT:
            value, position = varint(data, position)
            yield Field(tag >> 3, value, None)
        else:
            size = _fixed_bytes(tag)
            yield Field(tag >> 3, int.from_bytes(data[position : position + size], "little"), None)
            position += size


def contents(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field of a message that has a content. Raises as `fields` does."""
    for one in fields(data):
        if one.content is not None:
            yield one.number, one.content


def fields_of_file(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and length of each field that has a content, the file standing at its beginning.

    Whoever is given one leaves the file standing at its end.

    Raises:
        ValueError: the file holds no message.
    """
    while file.tell() < end:
        tag = _varint_of_file(file)
        if tag & 7 == _LENGTH_DELIMITED:
            size = _varint_of_file(file)
            if file.tell() + size > end:
                raise ValueError("a field is longer than its message")
            yield tag >> 3, size
        elif tag & 7 == _VARINT:
            _varint_of_file(file)
        else:
            file.seek(_fixed_bytes(tag), 1)


def varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number that begins at a position, and where it ends.

    Raises:
        ValueError: it does not end.
    """
    value = 0
    for place, byte in enumerate(data[position : position + _VARINT_MOST_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 1
    raise ValueError("a number does not end")


def _varint_of_file(file: BinaryIO) -> int:
    value = 0
    for place in range(_VARINT_MOST_BYTES):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            return value
    raise ValueError("a number does not end")


def _fixed_bytes(tag: int) -> int:
    size = _FIXED_BYTES.get(tag & 7)
    if size is None:
        raise ValueError(f"a field of wire type {tag & 7}")
    return size
