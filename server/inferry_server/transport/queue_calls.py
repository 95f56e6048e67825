"""Calls that are driven by events of a completion queue: one operation after another, no thread of their own.

A read without a message means that the client has half-closed, or that it has gone. Where gRPC's own threads read the
connections, the event of a cancellation may come some 100 us after that read. So the end is read twice: all ends of a
call go through one queue of its connection, so the second read ends after a cancellation that ended the first.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from inferry_server.rpc.call import StreamReceiver
from inferry_server.rpc.router import Account, EndingCall
from inferry_server.rpc.statuses import CANCELLED, OK, Status, no_message
from inferry_server.security.certificate_names import AuthContext
from inferry_server.telemetry.load_report import LoadReport
from inferry_server.transport import core_layer
from inferry_server.transport.remaining import SAME_S, monotonic_deadline
from inferry_server.transport.unsent import is_full

_LARGE_BYTES = 4 << 20  # of a message: freed in small pieces, it stays with the process until the heap is trimmed
_LATE_S = 1.0  # for a reply to be on its way: its client does not read
_NEVER_S = 1e12  # gRPC writes "no deadline" as the last moment that it can express


class Loop(Protocol):
    """What a call asks of the reading thread.

    Attributes:
        now: when it had the latest event, in monotonic seconds.
        unread: unary calls whose replies are on their way, and since when. Calls enter themselves from any thread.
    """

    now: float
    unread: "dict[QueueCall, float]"

    def reply_was_late(self) -> None:
        """A reply that its client did not read for long is freed now."""

    def unary_arrived(self, call: "QueueCall", message: bytes) -> None:
        """The request of a unary call has come."""

    def unary_without_request(self, call: "QueueCall") -> None:
        """No request of a unary call will come."""

    def large_refused(self) -> None:
        """A stream ended as a large message of it came."""

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back once every event that is ready now has been seen."""

    def stream_ended(self, call: "QueueStreamCall") -> None:
        """Forget a stream."""


class _BaseCall(EndingCall):
    """What unary and streaming calls share."""

    def __init__(self, event: Any, path: str, account: Account, loop: Loop, waited_s: float = 0.0) -> None:
        details = event.call_details
        deadline = details.deadline  # on the wall clock
        if deadline > _NEVER_S:
            deadline = None
        else:
            now, left_s = time.monotonic(), deadline - time.time()
            is_same = -SAME_S < details.deadline - deadline < SAME_S  # guard: clock-jump-deadline
            deadline = now + left_s if is_same else monotonic_deadline(details)
        super().__init__(path, event.invocation_metadata, deadline, account, waited_s)
        self._handle: core_layer.Handle = event.call
        self._loop = loop
        self._watched = False

    def certificate_names(self) -> Sequence[str]:
        """As `OpenCall.certificate_names`."""
        return core_layer.certificate_names(self._handle)

    def auth_context(self) -> AuthContext:
        """As `OpenCall.auth_context`."""
        return core_layer.auth_context(self._handle)

    def _closed(self, event: Any) -> None:
        if core_layer.was_cancelled(event):
            self.cancelled()


class QueueCall(_BaseCall):
    """A unary call. Most get their reply before their client could give up: only those that wait are watched.

    Attributes:
        gathered_at: when its request came, on the loop's clock, if it waits to be handled with others.
    """

    gathered_at = 0.0

    def watch(self) -> None:
        """Learn from now on if the client goes away."""
        with self._lock:
            if self._ended:
                return
            self._watched = True
            # Under the lock: a reply must find the watch begun, or begin it itself.
            core_layer.watch_close(self._handle, self._closed)

    def reply(self, message: bytes) -> None:
        """Send the reply, and end the call with OK."""
        if self._end(OK):
            self._loop.unread[self] = self._loop.now
            core_layer.send_reply(
                self._handle, message, self._was_read, close_watched=self._watched
            )  # guard: cost-reply-operation

    def abort(self, status: Status) -> None:
        """End with a status other than OK."""
        if self._end(status):
            core_layer.send_status(self._handle, status, _sent, first=True, close_watched=self._watched)

    def give_up(self) -> None:
        """Wait no longer for the client to read the reply."""
        core_layer.cancel(self._handle)

    def _was_read(self, event: Any) -> None:  # noqa: ARG002 - read, or the client has gone, or was given up
        since = self._loop.unread.pop(self, None)
        if since is None or self._loop.now - since > _LATE_S:  # guard: replies-unread-trimmed
            self._loop.reply_was_late()

    def received(self, event: Any) -> None:
        """Its request has come, or will not: the event of `receive_message`."""
        # the server is going away, and has not waited for it
        if self._ended:  # guard: calls-request-comes
            return
        message = core_layer.message_of(event)
        if message is None:
            self._without_request(event)
        else:
            self._loop.unary_arrived(self, message)

    def _without_request(self, event: Any) -> None:
        self._loop.unary_without_request(self)
        if core_layer.was_refused(event):
            self.cancelled(core_layer.REFUSED)
        else:
            self.watch()
            core_layer.receive_message(self._handle, self._no_request_will_come)  # guard: calls-read-twice

    def _no_request_will_come(self, event: Any) -> None:  # noqa: ARG002 - a client that has gone was told of before
        self.abort(no_message(self.method))


class ReportingCall(QueueCall):
    """A unary call whose reply tells the server's load.

    Args:
        report: of the load.
    """

    def __init__(
        self, report: LoadReport, event: Any, path: str, account: Account, loop: Loop, waited_s: float = 0.0
    ) -> None:
        super().__init__(event, path, account, loop, waited_s)
        self._report = report

    def reply(self, message: bytes) -> None:
        """Send the reply with the report in its trailers, and end the call with OK."""
        if self._end(OK):
            self._loop.unread[self] = self._loop.now
            core_layer.send_reply(
                self._handle, message, self._was_read, close_watched=self._watched, trailers=self._report.metadata
            )


class QueueStreamCall(_BaseCall):
    """A streaming call: one message is read at a time, one is being sent.

    Attributes:
        active_at: when its client last sent or read something, or was sent something, on the loop's clock.
    """

    def __init__(self, event: Any, path: str, account: Account, loop: Loop) -> None:
        super().__init__(event, path, account, loop)
        self._receiver: StreamReceiver | None = None
        self._reading = self._paused = self._draining = False
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._final: Status | None = None
        self._sending = self._begun = False
        self._half_closing = self._confirming = self._drain_waits = False
        self._asked = self._told = 0  # requests that came, and replies
        self.active_at = loop.now

    @property
    def awaits_request(self) -> bool:
        """As `open_calls.Stream`."""
        is_owed = self._asked > self._told  # guard: streams-owed
        return self._reading and not is_owed and not self._half_closing and not self._sending

    @property
    def awaits_reader(self) -> bool:
        """As `open_calls.Stream`."""
        return self._sending

    def give_up(self) -> None:
        """Wait no longer for the client to read: what is unsent is freed, and the call ends as cancelled."""
        self.active_at = self._loop.now
        core_layer.cancel(self._handle)

    def begin(self, receiver: StreamReceiver) -> None:
        """Give the client's messages to a receiver."""
        with self._lock:
            self._receiver = None if self._ended else receiver
        core_layer.watch_close(self._handle, self._closed)
        self._read_on()

    def drain(self) -> None:
        """Tell the receiver that the server stops, but after a half-close that has come already. On the reading thread.

        Requests that come from now on are dropped: they get no reply, and the stream does not end with OK although its
        client half-closes after them.
        """
        self._draining = True
        self._loop.soon(self._drained)  # guard: drain-half-close

    def pause_reading(self) -> None:
        """Read no further message for now."""
        with self._lock:
            self._paused = True

    def resume_reading(self) -> None:
        """Read on."""
        with self._lock:
            self._paused = False
        self._read_on()

    def send(self, message: bytes) -> None:
        """Send one message, after those before it."""
        with self._lock:
            if self._ended:
                return
            self._told += 1
            self._unsent.append(message)
            self._unsent_bytes += len(message)
        self._send_on()

    def finish(self) -> None:
        """End with status OK."""
        self.abort(OK)

    def abort(self, status: Status) -> None:
        """End, after what was sent."""
        if self._end(status):
            with self._lock:
                self._final = status
                self._receiver = None  # it refers to the call: both would wait for the garbage collection
            self._send_on()

    def cancelled(self, status: Status = CANCELLED) -> None:
        """The client went away: what is unsent will never be."""
        super().cancelled(status)
        with self._lock:
            self._receiver = None
            self._forget_unsent()
        self._loop.stream_ended(self)

    def _read_on(self) -> None:
        with self._lock:
            full = is_full(len(self._unsent), self._unsent_bytes)
            if self._reading or self._paused or full or self._ended:
                return
            self._reading = True
        core_layer.receive_message(self._handle, self._received)

    def _received(self, event: Any) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        message = core_layer.message_of(event)
        if message is None:
            if core_layer.was_refused(event):
                self.cancelled(core_layer.REFUSED)
            else:
                self._half_closing = self._confirming = True
                core_layer.receive_message(self._handle, self._half_closed)  # guard: streams-read-twice
            return
        if self._draining:
            return
        self._asked += 1
        self.active_at = self._loop.now
        receiver.on_message(message)
        if self._ended and len(message) >= _LARGE_BYTES:  # guard: large-refused-trimmed
            self._loop.large_refused()
        with self._lock:
            self._reading = False
        self._read_on()

    def _forget_unsent(self) -> None:
        self._unsent.clear()
        self._unsent_bytes = 0

    def _half_closed(self, event: Any) -> None:  # noqa: ARG002 - a client that has gone was told of before
        self._confirming = False
        receiver = self._receiver
        if receiver is None:
            return
        receiver.on_half_close()
        if self._drain_waits:
            self._drained()

    def _drained(self) -> None:
        self._drain_waits = self._confirming
        receiver = self._receiver
        if receiver is not None and not self._confirming:  # guard: drain-half-close-first
            receiver.on_drain()

    def _send_on(self) -> None:
        """Begin the next operation, unless one is under way."""
        with self._lock:
            if self._sending or not (self._unsent or self._final):
                return
            self._sending = True
            self.active_at = self._loop.now
            message = self._unsent.popleft() if self._unsent else None
            self._unsent_bytes -= len(message or b"")
            first, self._begun = not self._begun, True
            more_follow = bool(self._unsent) or self._final is not None
            final = self._final
        if message is not None:
            core_layer.send_message(self._handle, message, self._was_sent, first=first, more_follow=more_follow)
        elif final is not None:
            core_layer.send_status(self._handle, final, self._was_finished, first=first)

    def _was_finished(self, event: Any) -> None:  # noqa: ARG002 - sent, or the client has gone
        self._loop.stream_ended(self)

    def _was_sent(self, event: Any) -> None:
        with self._lock:
            self._sending = False
            self.active_at = self._loop.now
            if not event.success:  # the client is gone
                self._forget_unsent()
        self._send_on()
        self._read_on()


def _sent(event: Any) -> None:
    """Nothing is left to do."""
