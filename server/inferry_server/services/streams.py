"""One stream of requests: many are computed at once, and replies leave in the order of the requests."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from inferry_server.errors import ServingError, ShuttingDownError
from inferry_server.rpc.call import Outcome, StreamCall, fail
from inferry_server.rpc.statuses import CANCELLED, OK, Status, status_of
from inferry_server.trace import RequestTrace, Tracer

logger = logging.getLogger(__name__)

MAX_PENDING = 256  # requests of one stream without a reply; the server reads no further ones


class Submit(Protocol):
    """Queues a request and returns what forgets it."""

    def __call__(
        self, message: bytes, outcome: Outcome, *, call_deadline: float | None, trace: RequestTrace | None
    ) -> Callable[[], object]:
        """Raises ServingError where the request was not queued."""
        ...


@dataclass(frozen=True)
class StreamFormat:
    """How a stream's messages look.

    Attributes:
        request_id: of a request's bytes; asked for only where it failed.
        reply: turns a reply into the stream's message, both as bytes.
        error: makes the stream's message of a refusal, with the id of the request.
    """

    request_id: Callable[[bytes], str]
    reply: Callable[[bytes], bytes]
    error: Callable[[Status, str], Message]


class OrderedStream:
    """Takes the requests of one stream. Their replies may come from any thread, in any order.

    A reply is held until all earlier ones have left. For a request that fails, a message in the stream tells the
    error and the stream goes on; where the client asked for that, the error's status ends the stream instead, and
    later requests are forgotten. While `MAX_PENDING` requests have no reply, the server reads nothing more of the
    stream, so that a stream's memory is bounded. Each request has a trace of its own, as a call has.

    Args:
        call: the stream.
        stream_format: how its messages look.
        submit: queues a request.
        tracer: asked for each request whether to trace it.
        ends_on_error: whether the first request that fails ends the stream, with its status.
    """

    def __init__(
        self,
        call: StreamCall,
        stream_format: StreamFormat,
        submit: Submit,
        tracer: Tracer,
        *,
        ends_on_error: bool = False,
    ) -> None:
        self._call = call
        self._format = stream_format
        self._submit = submit
        self._tracer = tracer
        self._lock = threading.Lock()
        self._pending: deque[_StreamReply] = deque()
        self._ends_on_error = ends_on_error
        self._ended = False
        self._half_closed = False
        self._draining = False
        call.on_cancel(self._cancel)

    def on_message(self, message: bytes) -> None:
        """Queue a request, or tell in the stream why not."""
        if self._ended:  # it had been read already when an error ended the stream
            return
        trace = self._tracer.begin(self._call.method, self._call.metadata)
        reply = _StreamReply(self._flush, self._format, message, trace)
        with self._lock:
            self._pending.append(reply)  # guard: streams-replies-order
            if len(self._pending) == MAX_PENDING:
                self._call.pause_reading()  # guard: streams-client-too
        try:
            reply.cancels_with(self._submit(message, reply, call_deadline=self._call.deadline, trace=trace))
        except Exception as error:  # noqa: BLE001 - one request's error must not end the stream
            reply.fail(error)  # guard: streams-failed-request

    def on_half_close(self) -> None:
        """The client sends no more requests: the stream ends after the last reply."""
        with self._lock:
            self._half_closed = True
        self._flush()

    def on_drain(self) -> None:
        """The server stops: the stream ends after the last reply, with UNAVAILABLE."""
        with self._lock:
            self._draining = True
        self._flush()

    def _flush(self) -> None:
        """Send the replies that may leave now, in order."""
        with self._lock:
            abandoned = self._send_ready()
            if not self._pending and not self._ended:  # guard: streams-end-comes
                if self._half_closed:
                    self._call.finish()
                elif self._draining:
                    fail(self._call, ShuttingDownError())
        _forget(abandoned)

    def _send_ready(self) -> Sequence["_StreamReply"]:
        """Send every reply whose turn it is; returns the requests to forget, if an error has ended the stream."""
        while self._pending and (message := self._pending[0].message) is not None:
            if len(self._pending) == MAX_PENDING:
                self._call.resume_reading()  # guard: streams-read-when
            reply = self._pending.popleft()
            if reply.refusal is not None and self._ends_on_error:
                self._ended = True
                self._call.abort(reply.refusal)
                abandoned = tuple(self._pending)
                self._pending.clear()  # guard: streams-error-ends
                return abandoned
            self._call.send(message)
        return ()

    def _cancel(self) -> None:
        with self._lock:
            pending = list(self._pending)
        _forget(pending)


def _forget(replies: Iterable["_StreamReply"]) -> None:
    for reply in replies:
        reply.end_trace(CANCELLED)
        reply.cancel()  # guard: streams-client-goes


class _StreamReply:
    """The place of one reply in its stream.

    Attributes:
        message: as the stream carries it; None as long as there is none.
        refusal: the status of a request that failed.
        cancel: forgets the request.
    """

    __slots__ = ("_format", "_ready", "_request", "_trace", "cancel", "message", "refusal")

    def __init__(
        self, ready: Callable[[], None], stream_format: StreamFormat, request: bytes, trace: RequestTrace | None
    ) -> None:
        self._ready = ready
        self._format = stream_format
        self._request = request
        self._trace = trace
        self.message: bytes | None = None
        self.refusal: Status | None = None
        self.cancel: Callable[[], object] = _nothing

    def cancels_with(self, cancel: Callable[[], object]) -> None:
        """Keep what forgets the request until there is a reply; no longer, as it refers to the request's tensors."""
        self.cancel = cancel
        if self.message is not None:
            self.cancel = _nothing

    def reply(self, reply: bytes) -> None:
        self.end_trace(OK)
        self._set(self._format.reply(reply))

    def fail(self, error: Exception) -> None:
        if not isinstance(error, ServingError):
            logger.error("unexpected error in a stream", exc_info=error)
        status = status_of(error)
        self.end_trace(status)
        self.refusal = status
        self._set(self._format.error(status, self._request_id()).SerializeToString())

    def end_trace(self, status: Status) -> None:
        if self._trace is not None:
            self._trace.ended(code=status.code.value[0], reason=status.reason)

    def _request_id(self) -> str:
        try:
            return self._format.request_id(self._request)
        except ServingError:  # these bytes are no request, which is why it failed
            return ""

    def _set(self, message: bytes) -> None:
        self.message = message
        self.cancel = _nothing
        self._request = b""
        self._ready()


def _nothing() -> None:
    """Nothing is left to forget."""
