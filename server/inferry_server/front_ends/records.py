"""What front ends and the owner tell each other: records of a kind, the number of a call, a body and a message.

The body says what the kind says, the message is a request or a reply as its client sends or gets it. A front end
numbers its calls from 1; 0 is for what concerns no call. Times are on the monotonic clock, which the processes of one
machine share.
"""

import json
import math
import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import grpc

from inferry_server.front_ends.arena import ArenaReader, BrokenRecordsError
from inferry_server.rpc.statuses import CANCELLED, Status
from inferry_server.trace import Metadata

# From a front end.
UNARY = 1
"""A unary call (`Opening`) with its request as message."""
OPEN = 2
"""A stream (`Opening`)."""
MESSAGE = 3
"""The next request of a stream, as message."""
HALF_CLOSE = 4
"""The client of a stream will send no more."""
DRAIN = 5
"""A stream gets no more requests, because the front end stops."""
GONE = 6
"""Nobody waits for the outcome of a call any more (`write_status`)."""
COUNTED = 7
"""A call that the front end has ended by itself, and never told of (`Counted`)."""
LISTENING = 8
"""The front end takes connections."""
FAILED = 9
"""The front end cannot start; the reason as text."""
ALIVE = 10
"""For how many seconds the front end has not read although it should, and its CPU time (`write_alive`)."""
STOPPED = 11
"""The front end has stopped; one byte, 1 if every call ended by itself."""
USES_FILES = 12
"""The front end uses the files that it was told of last."""
GIVEN_UP = 13
"""A reply was not read in time by its client."""
CUT_OFF = 14
"""So many connections were cut off because their peers had too many (`write_count`)."""

TLS_CONNECTIONS = 15
"""So many connections over TLS were accepted, and so many had their first call (`write_counts`)."""

# From the owner.
PLAN = 20
"""How to serve (`plan.py`); the first record of all."""
REPLY = 21
"""The reply of a unary call, as message."""
SEND = 22
"""The next reply of a stream, as message."""
END = 23
"""The status with which a call ends (`write_status`)."""
TAKEN = 24
"""So many more requests of a stream have been taken (`write_count`)."""
STOP = 25
"""Stop, and take so many seconds at most (`write_seconds`)."""
SHED = 26
"""Refuse calls unread from now on, and tell callers to wait so many seconds; 0: refuse none (`write_seconds`)."""
REPORT = 27
"""The load, for the trailers of replies (`write_metadata`)."""
FILES = 28
"""What the access policy and the files of TLS hold now (`used_files.py`)."""

# From both.
FREED = 40
"""Places in the arena that are free again (`write_places`)."""

_IN_ARENA = 0x80  # added to a kind: the message is in the arena, and its place and size stand where it would
_HEADER = struct.Struct("<IIBQ")  # bytes of the body, of the message, kind, call
_PLACE = struct.Struct("<QI")
_OPENING = struct.Struct("<Hdd")
_SECONDS = struct.Struct("<d")
_ALIVE = struct.Struct("<dd")
_COUNT = struct.Struct("<I")
_COUNTS = struct.Struct("<II")
_NO_DEADLINE = math.inf
Record = tuple[int, int, bytes, bytes | memoryview]
"""Kind, call, body, message."""

MOST_BYTES = 1 << 31
"""Of one record that comes over the socket, where nobody says otherwise: no message of protobuf is larger."""
_LARGE = 1 << 16  # bytes; what is missing of a smaller record is joined with what there is


class Send(Protocol):
    """Sends a record to the other side. Any thread may call it."""

    def __call__(self, kind: int, number: int, body: bytes = b"", message: bytes = b"") -> None:
        """Send it soon, after those before it."""


def write(kind: int, call: int, body: bytes = b"", message: bytes = b"") -> bytes:
    """A record as it is sent."""
    return _HEADER.pack(len(body), len(message), kind, call) + body + message


def write_head(kind: int, call: int, body: bytes, size: int) -> bytes:
    """A record as it is sent, up to its message of this size, which has to follow."""
    return _HEADER.pack(len(body), size, kind, call) + body


def write_placed(kind: int, call: int, body: bytes, *, place: int, size: int) -> bytes:
    """A record whose message of this size is in the arena at this place, as it is sent."""
    return _HEADER.pack(len(body), _PLACE.size, kind | _IN_ARENA, call) + body + _PLACE.pack(place, size)


class RecordReader:
    """Cuts what comes over a socket into records, wherever the pieces begin and end.

    Args:
        arena: has the messages that do not come over the socket; None: all do.
        most_bytes: of one record; what announces more is broken.

    Attributes:
        missing: bytes of a large message, of which a part has come.
    """

    def __init__(self, arena: ArenaReader | None = None, most_bytes: int = MOST_BYTES) -> None:
        self._arena = arena
        self._most_bytes = most_bytes
        self._rest = b""  # of what came: less than a record
        self._begun: tuple[int, int, bytes] | None = None  # the record whose large message is missing
        self._pieces: list[bytes] = []  # of that
        self.missing = 0

    def read(self, piece: bytes) -> list[Record]:
        """The records that are complete with this piece.

        Raises:
            BrokenRecordsError: this is not what the other side sends.
        """
        records: list[Record] = []
        if self._begun is not None:
            if len(piece) < self.missing:
                self._pieces.append(piece)
                self.missing -= len(piece)
                return records
            records.append((*self._begun, b"".join((*self._pieces, memoryview(piece)[: self.missing]))))
            piece = piece[self.missing :]
            self._begun, self.missing = None, 0
            self._pieces = []
        if self._rest:
            piece = self._rest + piece
        position, end = 0, len(piece)
        header_size, unpack = _HEADER.size, _HEADER.unpack_from
        while position + header_size <= end:
            body_size, message_size, kind, call = unpack(piece, position)
            start = position + header_size
            middle = start + body_size
            stop = middle + message_size
            if stop > end:
                if body_size + message_size > self._most_bytes:  # guard: record-bounded
                    raise BrokenRecordsError(
                        f"a record of {body_size + message_size} bytes; expected {self._most_bytes} at most"
                    )
                if middle <= end and message_size > _LARGE:
                    self._begun, self.missing = (kind, call, piece[start:middle]), stop - end
                    self._pieces = [piece[middle:]]
                    position = end
                break
            if kind < _IN_ARENA:
                records.append((kind, call, piece[start:middle], piece[middle:stop]))
            else:
                records.append((kind ^ _IN_ARENA, call, piece[start:middle], self._placed(piece[middle:stop])))
            position = stop
        self._rest = piece[position:]
        return records

    def _placed(self, written: bytes) -> bytes | memoryview:
        if self._arena is None or len(written) != _PLACE.size:
            raise BrokenRecordsError("a message in an arena that there is not")
        return self._arena.take(*_PLACE.unpack(written))


Opening = tuple[int, float | None, float, bytes]
"""How a call begins: the number of its method in the plan, its deadline or None, when it came, and its metadata as the
front end wrote them (`write_metadata`)."""


def write_opening(path: int, deadline: float | None, arrived: float, metadata: bytes) -> bytes:
    """The body of UNARY and OPEN."""
    return _OPENING.pack(path, _NO_DEADLINE if deadline is None else deadline, arrived) + metadata


def read_opening(body: bytes) -> Opening:
    """What `write_opening` wrote."""
    path, due, arrived = _OPENING.unpack_from(body)
    return path, None if due == _NO_DEADLINE else due, arrived, body[_OPENING.size :]


def write_metadata(metadata: Metadata) -> bytes:
    """Pairs of a name and a text or bytes."""
    return json.dumps([[name, value if isinstance(value, str) else [value.hex()]] for name, value in metadata]).encode()


def read_metadata(body: bytes) -> tuple[tuple[str, str | bytes], ...]:
    """What `write_metadata` wrote."""
    return tuple(
        (name, value if isinstance(value, str) else bytes.fromhex(value[0])) for name, value in json.loads(body)
    )


def write_status(status: Status) -> bytes:
    """A status with everything that belongs to it."""
    if status is CANCELLED:
        return b""
    return json.dumps([status.code.value[0], status.message, list(status.trailing_metadata), status.reason]).encode()


def read_status(body: bytes) -> Status:
    """What `write_status` wrote."""
    if not body:
        return CANCELLED
    code, message, trailing, reason = json.loads(body)
    return Status(_CODES[code], message, tuple((name, value) for name, value in trailing), reason)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Counted(NamedTuple):
    """A call that a front end has ended by itself.

    Attributes:
        path: of its method.
        code: name of its status.
        reason: the kind of error.
        seconds: that it took.
    """

    path: str
    code: str
    reason: str
    seconds: float


def write_counted(counted: Counted) -> bytes:
    """The body of COUNTED."""
    return json.dumps(counted).encode()


def read_counted(body: bytes) -> Counted:
    """What `write_counted` wrote."""
    return Counted(*json.loads(body))


def write_seconds(seconds: float) -> bytes:
    """A number of seconds."""
    return _SECONDS.pack(seconds)


def read_seconds(body: bytes) -> float:
    """What `write_seconds` wrote."""
    return float(_SECONDS.unpack(body)[0])


def write_alive(still_s: float, cpu_s: float) -> bytes:
    """The body of ALIVE: two numbers of seconds."""
    return _ALIVE.pack(still_s, cpu_s)


def read_alive(body: bytes) -> tuple[float, float]:
    """What `write_alive` wrote."""
    still_s, cpu_s = _ALIVE.unpack(body)
    return still_s, cpu_s


def write_count(count: int) -> bytes:
    """A number of things."""
    return _COUNT.pack(count)


def read_count(body: bytes) -> int:
    """What `write_count` wrote."""
    return int(_COUNT.unpack(body)[0])


def write_counts(first: int, second: int) -> bytes:
    """Two numbers of things."""
    return _COUNTS.pack(first, second)


def read_counts(body: bytes) -> tuple[int, int]:
    """What `write_counts` wrote."""
    first, second = _COUNTS.unpack(body)
    return first, second


def write_places(places: Sequence[int]) -> bytes:
    """The body of FREED."""
    return struct.pack(f"<{len(places)}Q", *places)


def read_places(body: bytes) -> tuple[int, ...]:
    """What `write_places` wrote."""
    return struct.unpack(f"<{len(body) // 8}Q", body)
