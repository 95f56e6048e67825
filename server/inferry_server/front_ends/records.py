"""What front ends and the owner tell each other: records of a kind, the number of a call, and a body.

A front end numbers its calls from 1; 0 is for what concerns no call. Times are on the monotonic clock, which the
processes of one machine share.
"""

import json
import math
import struct
from typing import NamedTuple

import grpc

from inferry_server.rpc.statuses import CANCELLED, Status
from inferry_server.trace import Metadata

# From a front end.
UNARY = 1
"""A unary call with its request (`Opening`, then the message)."""
OPEN = 2
"""A stream (`Opening`)."""
MESSAGE = 3
"""The next request of a stream."""
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
"""The reply of a unary call."""
SEND = 22
"""The next reply of a stream."""
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

_HEADER = struct.Struct("<IBQ")  # bytes of the body, kind, call
_OPENING = struct.Struct("<HIdd")
_SECONDS = struct.Struct("<d")
_ALIVE = struct.Struct("<dd")
_COUNT = struct.Struct("<I")
_COUNTS = struct.Struct("<II")
_NO_DEADLINE = math.inf
Record = tuple[int, int, bytes]
"""Kind, call, body."""


def write(kind: int, call: int, body: bytes = b"") -> bytes:
    """A record as it is sent."""
    return _HEADER.pack(len(body), kind, call) + body


class RecordReader:
    """Cuts what comes over a socket into records, wherever the pieces begin and end."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = _HEADER.size  # bytes, at least, until the next record is complete

    def read(self, piece: bytes) -> list[Record]:
        """The records that are complete with this piece."""
        self._missing -= len(piece)
        if self._missing > 0:  # a large record comes in many pieces, which are joined once
            self._pieces.append(piece)
            return []
        if self._pieces:
            piece = b"".join((*self._pieces, piece))
        records: list[Record] = []
        position, end = 0, len(piece)
        self._missing = _HEADER.size
        while position + _HEADER.size <= end:
            size, kind, call = _HEADER.unpack_from(piece, position)
            start = position + _HEADER.size
            stop = start + size
            if stop > end:
                self._missing += size
                break
            records.append((kind, call, piece[start:stop]))
            position = stop
        self._missing -= end - position
        self._pieces = [piece[position:]] if position < end else []
        return records


class Opening(NamedTuple):
    """How a call begins.

    Attributes:
        path: number of its method in the plan.
        metadata: as the front end wrote it (`write_metadata`).
        deadline: None for none.
        arrived: when it came.
        message: of a unary call.
    """

    path: int
    metadata: bytes
    deadline: float | None
    arrived: float
    message: bytes


def write_opening(kind: int, call: int, opening: Opening) -> bytes:
    """A record of the kind UNARY or OPEN."""
    path, metadata, deadline, arrived, message = opening
    size = _OPENING.size + len(metadata) + len(message)
    due = _NO_DEADLINE if deadline is None else deadline
    return b"".join(
        (_HEADER.pack(size, kind, call), _OPENING.pack(path, len(metadata), due, arrived), metadata, message)
    )


def read_opening(body: bytes) -> Opening:
    """What `write_opening` wrote."""
    path, size, due, arrived = _OPENING.unpack_from(body)
    start = _OPENING.size + size
    deadline = None if due == _NO_DEADLINE else due
    return Opening(path, body[_OPENING.size : start], deadline, arrived, body[start:])


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
