"""One stream of requests: many at once, responses in the order of the requests."""

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

MAX_PENDING = 256  # requests of one stream that wait for their answer; beyond, the stream is not read


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
        response: a response as the stream carries it, both as bytes.
        error: a refusal as the stream carries it, with the id of the request.
    """

    request_id: Callable[[bytes], str]
    response: Callable[[bytes], bytes]
    error: Callable[[Status, str], Message]


class OrderedStream:
    """Takes the requests of one stream. Answers may come from any thread, in any order.

    Responses are held until those before them have gone. A request that fails is answered in band,
    and the stream lives on; or its status ends the stream, where the client asked for that, and what
    waits behind it is forgotten. With `MAX_PENDING` requests unanswered, the client is not read until some
    are, so that a stream's memory is bounded. Each request has a trace of its own, as if it were a call.

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
        self._pending: deque[_StreamAnswer] = deque()
        self._ends_on_error = ends_on_error
        self._ended = False
        self._half_closed = False
        self._draining = False
        call.on_cancel(self._cancel)

    def on_message(self, message: bytes) -> None:
        """Queue a request, or answer in band why not."""
        if self._ended:  # it had been read already when an error ended the stream
            return
        trace = self._tracer.begin(self._call.method, self._call.metadata)
        answer = _StreamAnswer(self._flush, self._format, message, trace)
        with self._lock:
            self._pending.append(answer)  # guard: streams-replies-order
            if len(self._pending) == MAX_PENDING:
                self._call.pause_reading()  # guard: streams-client-too
        try:
            answer.cancels_with(self._submit(message, answer, call_deadline=self._call.deadline, trace=trace))
        except Exception as error:  # noqa: BLE001 - one request's error must not end the stream
            answer.fail(error)  # guard: streams-failed-request

    def on_half_close(self) -> None:
        """No more requests: the stream ends after the last response."""
        with self._lock:
            self._half_closed = True
        self._flush()

    def on_drain(self) -> None:
        """The server is going away: the stream ends after the last response, and says why."""
        with self._lock:
            self._draining = True
        self._flush()

    def _flush(self) -> None:
        """Send what can go out now, in order."""
        with self._lock:
            abandoned = self._send_ready()
            if not self._pending and not self._ended:  # guard: streams-end-comes
                if self._half_closed:
                    self._call.finish()
                elif self._draining:
                    fail(self._call, ShuttingDownError())
        _forget(abandoned)

    def _send_ready(self) -> Sequence["_StreamAnswer"]:
        """Send every response whose turn it is; returns what an error that ended the stream left behind."""
        while self._pending and (response := self._pending[0].response) is not None:
            if len(self._pending) == MAX_PENDING:
                self._call.resume_reading()  # guard: streams-read-when
            answer = self._pending.popleft()
            if answer.refusal is not None and self._ends_on_error:
                self._ended = True
                self._call.abort(answer.refusal)
                abandoned = tuple(self._pending)
                self._pending.clear()  # guard: streams-error-ends
                return abandoned
            self._call.send(response)
        return ()

    def _cancel(self) -> None:
        with self._lock:
            pending = list(self._pending)
        _forget(pending)


def _forget(answers: Iterable["_StreamAnswer"]) -> None:
    for answer in answers:
        answer.end_trace(CANCELLED)
        answer.cancel()  # guard: streams-client-goes


class _StreamAnswer:
    """The place of one response in its stream.

    Attributes:
        response: as it goes out; None as long as there is none.
        refusal: the status of a request that failed.
        cancel: forgets the request.
    """

    __slots__ = ("_format", "_message", "_ready", "_trace", "cancel", "refusal", "response")

    def __init__(
        self, ready: Callable[[], None], stream_format: StreamFormat, message: bytes, trace: RequestTrace | None
    ) -> None:
        self._ready = ready
        self._format = stream_format
        self._message = message
        self._trace = trace
        self.response: bytes | None = None
        self.refusal: Status | None = None
        self.cancel: Callable[[], object] = _nothing

    def cancels_with(self, cancel: Callable[[], object]) -> None:
        """What forgets the request, as long as it is not answered: it keeps the request's tensors."""
        self.cancel = cancel
        if self.response is not None:
            self.cancel = _nothing

    def reply(self, response: bytes) -> None:
        self.end_trace(OK)
        self._set(self._format.response(response))

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
            return self._format.request_id(self._message)
        except ServingError:  # it is no request at all, which is what it failed for
            return ""

    def _set(self, response: bytes) -> None:
        self.response = response
        self.cancel = _nothing
        self._message = b""
        self._ready()


def _nothing() -> None:
    """Nothing is left to forget."""
