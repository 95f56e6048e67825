"""Where things are in the bytes of a ModelInferRequest, without parsing what is inside.

A client's requests differ in their tensors' data and their ids; everything else, the header, is the
same bytes again and again. So it is cut out here, and checked once (`plans.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

_VARINT_MORE = 0x80
_VARINT_MOST_BYTES = 5  # lengths are below 2 GiB
_LENGTH_DELIMITED = 2  # the wire type of texts, bytes and messages
_WIRE_TYPE = 0b111

# Tags of the fields, as open_inference.proto numbers them.
_MODEL_NAME, _MODEL_VERSION, _ID, _PARAMETERS, _INPUTS, _OUTPUTS, _RAW = (
    number << 3 | _LENGTH_DELIMITED for number in range(1, 8)
)


@dataclass(slots=True)
class MessageLayout:
    """A ModelInferRequest, cut up.

    Attributes:
        model_name: which model is asked.
        model_version: which version, or label, of it; empty for none.
        request_id: empty for none.
        header: every other field but the raw contents, with the two names: what decides how to read them.
        raw_starts: where each of the raw_input_contents begins.
        raw_sizes: of each of them, in bytes.
    """

    model_name: str
    model_version: str
    request_id: str
    header: bytes
    raw_starts: list[int]
    raw_sizes: list[int]


def read_layout(message: bytes) -> MessageLayout | None:
    """Cut a request up.

    Returns:
        None where anything is unusual: a field that is repeated or unknown, or bytes that are no such
        message. Then the whole message must be parsed, and what is wrong told by that.
    """
    name = version = request_id = b""
    starts: list[int] = []
    sizes: list[int] = []
    pieces: list[bytes] = []
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
        return MessageLayout(name.decode(), version.decode(), request_id.decode(), b"".join(pieces), starts, sizes)
    except (IndexError, UnicodeDecodeError):
        return None


def _long_size(message: bytes, position: int) -> tuple[int, int]:
    """A varint, and where it ends. Raises IndexError where it does not."""
    value = 0
    for place in range(_VARINT_MOST_BYTES):
        byte = message[position + place]
        value |= (byte & ~_VARINT_MORE) << 7 * place
        if byte < _VARINT_MORE:
            return value, position + place + 1
    raise IndexError


def varint(value: int) -> bytes:
    """A length as protobuf writes it."""
    pieces = bytearray()
    while value >= _VARINT_MORE:
        pieces.append(value & ~_VARINT_MORE & 0xFF | _VARINT_MORE)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def submessage(number: int, more: bytes = b"") -> Callable[[bytes], bytes]:
    """What puts a message into the field of another one that has nothing else.

    Args:
        number: of the field.
        more: fields that the inner message gets behind its own: bytes of messages that follow one another are
            one message with the fields of both.
    """
    tag = bytes([number << 3 | _LENGTH_DELIMITED])
    return lambda message: b"".join((tag, varint(len(message) + len(more)), message, more))
