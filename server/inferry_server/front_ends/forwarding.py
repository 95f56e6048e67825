"""In a front end: every call goes to the owner, and what the owner replies goes to the call."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from functools import partial
from typing import Any

from inferry_server.errors import QueueFullError, ShuttingDownError
from inferry_server.front_ends import records
from inferry_server.front_ends.channel import Channel
from inferry_server.front_ends.plan import FrontEndPlan
from inferry_server.front_ends.records import Counted, Record, Send
from inferry_server.rpc.call import Call, StreamCall, StreamReceiver, fail
from inferry_server.rpc.router import EndingCall, Router
from inferry_server.rpc.statuses import Status
from inferry_server.security.access import Access
from inferry_server.telemetry.load_report import LoadReport
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.series import Count
from inferry_server.trace import Metadata

_MOST_UNTAKEN, _MOST_UNTAKEN_BYTES = 32, 1 << 20  # requests of a stream that the owner has not taken
_MOST_KNOWN = 1024  # forms of metadata, of which most callers have one
_FLUSHED_AT = 16  # records; fewer wait until no event is ready
_RETRY_AFTER_S = 0.1


class Gathering:
    """Has the reading thread send what it forwards, once no event is ready: a `BetweenEvents` for the transport.

    Args:
        channel: to the owner.
        calls: that the owner has been told of, and that have not ended.

    Attributes:
        pending: at most one sending.
        retry_after_s: what callers are told who are refused unread; 0: nobody is.
    """

    def __init__(self, channel: Channel, calls: Sized) -> None:
        self.pending: deque[Callable[[], None]] = deque()
        self._calls = calls
        self.retry_after_s = 0.0
        self._channel = channel
        self._waiting = 0
        self._reader: int | None = None

    @property
    def stays_awake(self) -> bool:
        """While there is one call at most.

        With more, polling takes the cores from the owner: at 8 calls at a time over two front ends on two cores, a
        fifth of the CPU.
        """
        return len(self._calls) <= 1  # guard: front-end-sleeps

    @property
    def shedding(self) -> "Gathering":
        """Itself: see `retry_after_s`."""
        return self

    def count(self) -> None:
        """Nothing: the router tells the owner of every call that it refuses."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The calling thread reads inside."""
        reader = self._reader = threading.get_ident()
        try:
            yield
        finally:
            if self._reader == reader:
                self._reader = None
            self._channel.flush()

    def send(self, kind: int, number: int, body: bytes = b"", message: bytes = b"") -> None:
        """Send a record soon, if the reading thread calls; else at once."""
        self._channel.put(kind, number, body, message)
        if threading.get_ident() != self._reader:
            self._channel.flush()
            return
        self._waiting += 1
        if not self.pending:
            self.pending.append(self._flush)
        if self._waiting >= _FLUSHED_AT:
            self._flush()  # what is pending stays: the transport may have seen it, and takes it next

    def _flush(self) -> None:
        self._waiting = 0
        self._channel.flush()


class Forwarding:
    """The calls that the owner has been told of. Thread-safe.

    Args:
        channel: to the owner.
        plan: with the methods there are.
    """

    def __init__(self, channel: Channel, plan: FrontEndPlan, report: LoadReport | None) -> None:
        self._calls: dict[int, Any] = {}
        self.gathering = Gathering(channel, self._calls)
        self._send = self.gathering.send
        self._channel = channel
        self._most_unsent_bytes = plan.most_unsent_bytes
        self._report = report
        self._numbers = itertools.count(1)
        self._streams: dict[int, _ForwardedStream] = {}
        self._written: dict[Metadata, bytes] = {}
        self._closed = False
        self._handlers: dict[int, Callable[[int, bytes, bytes], None]] = {
            records.REPLY: self._reply,
            records.SEND: self._send_on,
            records.END: self._end,
            records.TAKEN: self._taken,
            records.SHED: self._shed,
            records.REPORT: self._report_load,
            records.FREED: self._freed,
        }

    def forward(self, path: int, call: Call, message: bytes) -> None:
        """Give a unary call to the owner.

        Raises:
            QueueFullError: the owner has not taken what was sent before.
            ShuttingDownError: there is no owner any more.
        """
        self._check_room(len(message))
        number = self._open(call)
        arrived = time.monotonic() - call.waited_s
        opening = records.write_opening(path, call.deadline, arrived, self._metadata_of(call.metadata))
        self._send(records.UNARY, number, opening, message)

    def open(self, path: int, call: StreamCall) -> StreamReceiver:
        """Give a stream to the owner. Raises as `forward`."""
        self._check_room(0)
        number = self._open(call)
        stream = self._streams[number] = _ForwardedStream(call, number, self._send)
        opening = records.write_opening(path, call.deadline, time.monotonic(), self._metadata_of(call.metadata))
        self._send(records.OPEN, number, opening)
        return stream

    def ended(self, number: int, status: Status) -> None:
        """A call has ended. The owner hears of it, unless it was the owner that ended it."""
        self._streams.pop(number, None)
        if self._calls.pop(number, None) is not None:
            self._send(records.GONE, number, records.write_status(status))

    def count(self, path: str, status: Status, seconds: float) -> None:
        """Tell the owner of a call that ended before it was forwarded."""
        counted = Counted(path, status.code_name, status.reason, seconds)
        self._send(records.COUNTED, 0, records.write_counted(counted))

    def give_up(self) -> None:
        """Tell the owner of a reply that its client has not read in time."""
        self._send(records.GIVEN_UP, 0)

    def cut_off(self, count: int) -> None:
        """Tell the owner of connections that were cut off because their peers had too many."""
        self._send(records.CUT_OFF, 0, records.write_count(count))

    def tls_connections(self, accepted: int, used: int) -> None:
        """Tell the owner of connections over TLS."""
        self._send(records.TLS_CONNECTIONS, 0, records.write_counts(accepted, used))

    def handle(self, record: Record) -> None:
        """Do what the owner says."""
        kind, number, body, message = record
        self._handlers[kind](number, body, bytes(message))  # which it is: only the owner's arena gives views

    def close(self) -> None:
        """The owner has gone: no call gets its outcome any more, and later ones are refused."""
        self._closed = True
        for number in list(self._calls):
            call = self._calls.pop(number, None)
            if call is not None:
                fail(call, ShuttingDownError())

    def _open(self, call: Call | StreamCall) -> int:
        assert isinstance(call, EndingCall)  # noqa: S101 - every transport's are
        account = call.account
        assert isinstance(account, _Account)  # noqa: S101 - this module's router opened it
        number = account.number = next(self._numbers)
        self._calls[number] = call
        return number

    def _check_room(self, size: int) -> None:
        if self._closed:
            raise ShuttingDownError()
        if not self._channel.wants_room:
            return
        unsent = self._channel.unsent_bytes
        if unsent + size > self._most_unsent_bytes:  # guard: front-end-bounded
            raise QueueFullError(
                "bytes", limit=self._most_unsent_bytes, actual=unsent + size, retry_after_s=_RETRY_AFTER_S
            )

    def _metadata_of(self, metadata: Metadata) -> bytes:
        metadata = tuple(metadata)
        written = self._written.get(metadata)
        if written is None:
            if len(self._written) >= _MOST_KNOWN:
                self._written.clear()
            written = self._written[metadata] = records.write_metadata(metadata)
        return written

    def _reply(self, number: int, _: bytes, message: bytes) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            call.reply(message)

    def _send_on(self, number: int, _: bytes, message: bytes) -> None:
        call = self._calls.get(number)
        if call is not None:
            call.send(message)

    def _end(self, number: int, body: bytes, _: bytes) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            call.abort(records.read_status(body))

    def _taken(self, number: int, body: bytes, _: bytes) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.taken(records.read_count(body))

    def _shed(self, _: int, body: bytes, __: bytes) -> None:
        self.gathering.retry_after_s = records.read_seconds(body)

    def _freed(self, _: int, body: bytes, __: bytes) -> None:
        self._channel.freed(records.read_places(body))

    def _report_load(self, _: int, body: bytes, __: bytes) -> None:
        if self._report is not None:
            self._report.metadata = tuple((name, _bytes(value)) for name, value in records.read_metadata(body))


class _ForwardedStream:
    """Takes the requests of a stream to the owner, and reads no more while the owner has many of them to take."""

    def __init__(self, call: StreamCall, number: int, send: Send) -> None:
        self._call = call
        self._number = number
        self._send = send
        self._lock = threading.Lock()
        self._untaken: deque[int] = deque()
        self._untaken_bytes = 0
        self._paused = False

    def on_message(self, message: bytes) -> None:
        """Forward a request."""
        with self._lock:
            self._untaken.append(len(message))
            self._untaken_bytes += len(message)
            if self._is_full and not self._paused:  # guard: front-end-stream-bounded
                self._paused = True
                self._call.pause_reading()
        self._send(records.MESSAGE, self._number, b"", message)

    def on_half_close(self) -> None:
        """Tell the owner."""
        self._send(records.HALF_CLOSE, self._number)

    def on_drain(self) -> None:
        """Tell the owner."""
        self._send(records.DRAIN, self._number)

    def taken(self, count: int) -> None:
        """The owner has taken so many more requests."""
        with self._lock:
            for _ in range(count):
                self._untaken_bytes -= self._untaken.popleft()
            if self._paused and not self._is_full:
                self._paused = False
                self._call.resume_reading()  # here: after a later pause it would undo that

    @property
    def _is_full(self) -> bool:
        return len(self._untaken) >= _MOST_UNTAKEN or self._untaken_bytes >= _MOST_UNTAKEN_BYTES


class _Account:
    """The account of a call in a front end: the owner keeps the books.

    Attributes:
        number: of the call, once the owner is told of it; 0 before.
        trace: none; the owner traces.
    """

    __slots__ = ("_done", "_forwarding", "_path", "_started", "number")

    trace = None

    def __init__(self, path: str, forwarding: Forwarding, done: Count | None) -> None:
        self.number = 0
        self._path = path
        self._forwarding = forwarding
        self._done = done
        self._started = time.monotonic()

    def ended(self, status: Status) -> None:
        """Tell the owner, if it does not know."""
        if self._done is not None:
            self._done.inc()
        if self.number:
            self._forwarding.ended(self.number, status)
        else:
            self._forwarding.count(self._path, status, time.monotonic() - self._started)


class ForwardingRouter(Router):
    """A router whose handlers are the owner's.

    Args:
        plan: names the methods.
        forwarding: takes the calls.
        access: who may call; None: everybody.
    """

    def __init__(self, plan: FrontEndPlan, forwarding: Forwarding, access: Access | None) -> None:
        super().__init__(ServerMetrics(), access=access)
        self._forwarding = forwarding
        self._began, self._done = Count(), Count()  # unary calls
        for number, path in enumerate(plan.paths):
            if path in plan.unary:
                sheddable = _always if path in plan.sheddable else None
                self.add_unary({path: partial(forwarding.forward, number)}, traced=False, sheddable=sheddable)
            else:
                self.add_streams({path: partial(forwarding.open, number)})

    def received(self, path: str, metadata: Metadata) -> _Account:  # noqa: ARG002 - it goes to the owner
        """Open the account of a call that has just arrived."""
        if not self.is_unary(path):
            return _Account(path, self._forwarding, None)
        self._began.inc()
        return _Account(path, self._forwarding, self._done)

    def unary_in_flight(self) -> int:
        """Unary calls that have arrived and not ended."""
        return self._began.value - self._done.value

    def reply_given_up(self) -> None:
        """Have the owner count a reply whose client has not read it in time."""
        self._forwarding.give_up()

    def cut_off(self, count: int) -> None:
        """Have the owner count connections that were cut off."""
        self._forwarding.cut_off(count)

    def tls_connections(self, accepted: int, used: int) -> None:
        """Have the owner count connections over TLS."""
        self._forwarding.tls_connections(accepted, used)

    def shed(self, path: str, status: Status) -> None:
        """Have the owner count a call that is refused as it arrives."""
        self._forwarding.count(path, status, 0.0)


def _always() -> bool:
    return True


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
