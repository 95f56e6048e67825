"""Where the parts of a ModelInfer request are, found by its fields without parsing what is inside them."""

from collections.abc import Sequence

Parts = tuple[str, str, str, bytes, Sequence[int], Sequence[int]]
"""Of a request: model, version, id and header, and where each of the raw contents begins and how large it is."""

_VARINT_MORE = 0x80
_VARINT_MOST_BYTES = 5  # lengths are below 2 GiB
_LENGTH_DELIMITED = 2  # the wire type of texts, bytes and messages
_WIRE_TYPE = 0b111

# Tags of the fields, as open_inference.proto numbers them.
_MODEL_NAME, _MODEL_VERSION, _ID, _PARAMETERS, _INPUTS, _OUTPUTS, _RAW = (
    number << 3 | _LENGTH_DELIMITED for number in range(1, 8)
)


def find_parts(message: bytes | memoryview) -> Parts | None:
    """Find out where things are in a request, without parsing what is inside.

    Returns:
        None where anything is unusual: a field that is repeated or unknown, or bytes that are no such
        message. Then the whole message must be parsed, and what is wrong told by that.
    """
    name: bytes | memoryview = b""
    version: bytes | memoryview = b""
    request_id: bytes | memoryview = b""
    starts: list[int] = []
    sizes: list[int] = []
    pieces: list[bytes | memoryview] = []
    position, header_start, end, last = 0, 0, len(message), 0
    try:
        while position < end:
            tag, size, start = message[position], message[position + 1], position + 2
            if size >= _VARINT_MORE:
                size, start = _long_size(message, position + 1)
            stop = start + size
            if tag < last or stop > end or (tag == last and tag < _PARAMETERS):
                return None
            if tag == _RAW:
                if not starts:
                    pieces.append(message[header_start:position])
                starts.append(start)
                sizes.append(size)
                header_start = stop
            elif tag == _ID:
                pieces.append(message[header_start:position])
                request_id = message[start:stop]
                header_start = stop
            elif tag == _MODEL_NAME:
                name = message[start:stop]
            elif tag == _MODEL_VERSION:
                version = message[start:stop]
            elif tag & _WIRE_TYPE != _LENGTH_DELIMITED or tag > _RAW:
                return None
            position, last = stop, tag
        if header_start < end:
            pieces.append(message[header_start:])
        header = b"".join(pieces)
        return str(name, "utf-8"), str(version, "utf-8"), str(request_id, "utf-8"), header, starts, sizes
    except (IndexError, UnicodeDecodeError):
        return None


def id_starts(message: bytes | memoryview) -> int:
    """Where the id begins in a request that was cut up and has one."""
    position = 0
    while True:
        size, start = _long_size(message, position + 1)
        if message[position] == _ID:
            return start
        position = start + size


def _long_size(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """A varint, and where it ends. Raises IndexError where it does not."""
    value = 0
    for place in range(_VARINT_MOST_BYTES):
        byte = message[position + place]
        value |= (byte & ~_VARINT_MORE) << 7 * place
        if byte < _VARINT_MORE:
            return value, position + place + 1
    raise IndexError
