"""In the owner: calls that a front end has forwarded."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from inferry_server.errors import ShedError
from inferry_server.front_ends import records
from inferry_server.front_ends.records import Send
from inferry_server.rpc.call import Arrived, Message, StreamReceiver
from inferry_server.rpc.router import Account, EndingCall, Router
from inferry_server.rpc.statuses import CANCELLED, OK, Status
from inferry_server.trace import Metadata

_GATHERED = 16  # calls that are handled together, as in a server without front ends
_MOST_KNOWN = 1024  # forms of metadata, of which most callers have one
# Requests of a stream that were taken, and of which the front end has not heard: less than what it sends unheard.
_TOLD_AT, _TOLD_AT_BYTES = 16, 1 << 18


class ForwardedCall(EndingCall):
    """A unary call of a front end.

    Args:
        number: that the front end gave it.
        method: the path.
        metadata: as the client sent it.
        deadline: on the monotonic clock, in seconds; None for none.
        arrived: when it came to the front end, on that clock.
        account: where the outcome is counted.
        send: sends a record to the front end.
        forget: called with the number when it has ended, and with None: `dict.pop`.
    """

    def __init__(
        self,
        number: int,
        method: str,
        metadata: Metadata,
        deadline: float | None,
        arrived: float,
        account: Account,
        send: Send,
        forget: Callable[[int, None], object],
    ) -> None:
        super().__init__(method, metadata, deadline, account, max(0.0, time.monotonic() - arrived))
        self._number = number
        self._send = send
        self._forget = forget

    def reply(self, message: bytes) -> None:
        """As `Call.reply`."""
        if self._end(OK):
            self._forget(self._number, None)
            self._send(records.REPLY, self._number, b"", message)

    def abort(self, status: Status) -> None:
        """As `Call.abort`."""
        if self._end(status):
            self._forget(self._number, None)
            self._send(records.END, self._number, records.write_status(status))

    def cancelled(self, status: Status = CANCELLED) -> None:
        """As `EndingCall.cancelled`."""
        super().cancelled(status)
        self._forget(self._number, None)


class ForwardedStreamCall(ForwardedCall):
    """A stream of a front end, which sends a bounded number of requests before it hears that some were taken."""

    def __init__(
        self,
        number: int,
        method: str,
        metadata: Metadata,
        deadline: float | None,
        arrived: float,
        account: Account,
        send: Send,
        forget: Callable[[int, None], object],
    ) -> None:
        super().__init__(number, method, metadata, deadline, arrived, account, send, forget)
        self._receiver: StreamReceiver | None = None
        self._flow = threading.Lock()
        self._taken = self._taken_bytes = 0
        self._paused = False

    def begin(self, receiver: StreamReceiver) -> None:
        """Give the client's requests to a receiver."""
        if not self._ended:
            self._receiver = receiver

    def pause_reading(self) -> None:
        """As `StreamCall.pause_reading`."""
        with self._flow:
            self._paused = True

    def resume_reading(self) -> None:
        """As `StreamCall.resume_reading`."""
        with self._flow:
            self._paused = False
            self._tell_taken()

    def send(self, message: bytes) -> None:
        """As `StreamCall.send`."""
        if not self._ended:
            self._send(records.SEND, self._number, b"", message)

    def finish(self) -> None:
        """As `StreamCall.finish`."""
        self.abort(OK)

    def on_message(self, message: Message) -> None:
        """The client sent a request."""
        if self._receiver is not None and not self._ended:
            self._receiver.on_message(message)
        with self._flow:
            self._taken += 1
            self._taken_bytes += len(message)
            if self._taken >= _TOLD_AT or self._taken_bytes >= _TOLD_AT_BYTES:  # guard: front-end-told-bytes
                self._tell_taken()

    def on_half_close(self) -> None:
        """The client will send no more."""
        if self._receiver is not None and not self._ended:
            self._receiver.on_half_close()

    def on_drain(self) -> None:
        """The front end stops."""
        if self._receiver is not None and not self._ended:
            self._receiver.on_drain()

    def _tell_taken(self) -> None:
        if self._taken and not self._paused:
            self._send(records.TAKEN, self._number, records.write_count(self._taken))
            self._taken = self._taken_bytes = 0

    def _end(self, status: Status) -> bool:
        ends = super()._end(status)
        if ends:
            self._receiver = None  # which knows the call: together they would wait for the garbage collection
        return ends


class ForwardedCalls:
    """Makes calls of the records of one front end, and has the router's handlers answer them.

    One thread calls the handlers, `handle_gathered` and `close`; calls end on any.

    Args:
        router: finds the handlers.
        paths: of the methods, as front ends number them.
        send: sends a record to the front end.
        shed: called for each call that the front end has refused unread.

    Attributes:
        handlers: by the kind of a record, what does what it says; called with the number of its call, its body and its
            message. Calls whose requests may be handled together are gathered, and wait for `handle_gathered`.
    """

    def __init__(self, router: Router, paths: Sequence[str], send: Send, shed: Callable[[], object]) -> None:
        self._router = router
        self._paths = paths
        self._send = send
        self._shed = shed
        self._calls: dict[int, ForwardedCall] = {}
        self._streams: dict[int, ForwardedStreamCall] = {}
        self._read: dict[bytes, Metadata] = {}
        self._together = [router.together.get(path, -1) for path in paths]  # guard: together-where-handled
        self._gathered: list[Arrived] = []
        self.handlers: dict[int, Callable[[int, bytes, Message], None]] = {
            records.UNARY: self._unary,
            records.OPEN: self._open,
            records.MESSAGE: self._message,
            records.HALF_CLOSE: self._half_close,
            records.DRAIN: self._drain,
            records.GONE: self._gone,
            records.COUNTED: self._counted,
            records.GIVEN_UP: self._given_up,
            records.CUT_OFF: self._cut_off,
            records.TLS_CONNECTIONS: self._tls_connections,
        }

    def __len__(self) -> int:
        return len(self._calls)

    def close(self) -> None:
        """The front end is gone, and its clients with it."""
        for call in list(self._calls.values()):
            call.cancelled()

    def _unary(self, number: int, body: bytes, message: Message) -> None:
        path, deadline, arrived, written = records.read_opening(body)
        method, metadata = self._paths[path], self._metadata(written)
        account = self._router.received(method, metadata)
        forget = self._calls.pop
        call = ForwardedCall(number, method, metadata, deadline, arrived, account, self._send, forget)
        self._calls[number] = call
        if type(message) is not bytes:
            self._router.handle(call, self._message_for(method, message))
        elif len(message) > self._together[path]:  # guard: gathered-short
            self._router.handle(call, message)
        else:
            self._gather(call, message)

    def _gather(self, call: ForwardedCall, message: bytes) -> None:
        gathered = self._gathered
        if len(gathered) >= _GATHERED or (gathered and call.method != gathered[0][0].method):
            self.handle_gathered()
        self._gathered.append((call, message))

    def handle_gathered(self) -> None:
        """No more records have come: handle the calls that were gathered."""
        gathered = self._gathered
        if gathered:
            self._gathered = []
            self._router.handle_alike(gathered)

    def _open(self, number: int, body: bytes, _: Message) -> None:
        path, deadline, arrived, written = records.read_opening(body)
        method, metadata = self._paths[path], self._metadata(written)
        account = self._router.received(method, metadata)
        forget = self._forget_stream
        call = ForwardedStreamCall(number, method, metadata, deadline, arrived, account, self._send, forget)
        self._calls[number] = self._streams[number] = call
        call.begin(self._router.open(call))

    def _message(self, number: int, _: bytes, message: Message) -> None:
        if (stream := self._streams.get(number)) is not None:
            stream.on_message(self._message_for(stream.method, message))

    def _half_close(self, number: int, _: bytes, __: Message) -> None:
        if (stream := self._streams.get(number)) is not None:
            stream.on_half_close()

    def _drain(self, number: int, _: bytes, __: Message) -> None:
        if (stream := self._streams.get(number)) is not None:
            stream.on_drain()

    def _gone(self, number: int, body: bytes, _: Message) -> None:
        if (call := self._calls.get(number)) is not None:
            call.cancelled(records.read_status(body))

    def _counted(self, _: int, body: bytes, __: Message) -> None:
        counted = records.read_counted(body)
        self._router.counted(*counted)
        if counted.reason == ShedError.kind:
            self._shed()

    def _given_up(self, _: int, __: bytes, ___: Message) -> None:
        self._router.reply_given_up()

    def _cut_off(self, _: int, body: bytes, __: Message) -> None:
        self._router.cut_off(records.read_count(body))

    def _tls_connections(self, _: int, body: bytes, __: Message) -> None:
        self._router.tls_connections(*records.read_counts(body))

    def _message_for(self, method: str, message: Message) -> Any:
        """A message as the method's handler takes it: bytes, or a view where it takes views."""
        return message if self._router.takes_views(method) else bytes(message)  # guard: views-wanted

    def _forget_stream(self, number: int, _: None) -> None:
        self._calls.pop(number, None)
        self._streams.pop(number, None)

    def _metadata(self, written: bytes) -> Metadata:
        metadata = self._read.get(written)
        if metadata is None:
            if len(self._read) >= _MOST_KNOWN:
                self._read.clear()
            metadata = self._read[written] = records.read_metadata(written)
        return metadata
