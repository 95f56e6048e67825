"""One stream of requests: many at once, responses in the order of the requests."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from inferry_server.errors import ServingError, ShuttingDownError
from inferry_server.request_trace import RequestTrace, Tracer
from inferry_server.rpc.call import StreamCall, fail
from inferry_server.services.messages import parse
from inferry_server.statuses import CANCELLED, OK, Status, status_of

logger = logging.getLogger(__name__)

MAX_PENDING = 256  # requests of one stream that wait for their answer; beyond, the stream is not read

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
RequestIn = TypeVar("RequestIn", bound=Message, contravariant=True)
ResponseIn = TypeVar("ResponseIn", bound=Message, contravariant=True)
ResponseOut = TypeVar("ResponseOut", bound=Message, covariant=True)


class Answer(Protocol[ResponseIn]):
    """Where the outcome of one request goes: exactly one of the two is called, once, from any thread."""

    def respond(self, response: ResponseIn) -> None:
        """It was computed."""

    def fail(self, error: Exception) -> None:
        """It was not."""


class Submit(Protocol[RequestIn, ResponseOut]):
    """Queues a request and returns what forgets it."""

    def __call__(
        self,
        request: RequestIn,
        answer: Answer[ResponseOut],
        *,
        call_deadline: float | None,
        trace: RequestTrace | None,
    ) -> Callable[[], object]:
        """Raises ServingError where the request was not queued."""
        ...


@dataclass(frozen=True)
class StreamFormat(Generic[Request, Response]):
    """How a stream's messages look.

    Attributes:
        request_type: what the client sends.
        request_id: of a request.
        response: an answer as the stream carries it.
        error: a refusal as the stream carries it, with the id of the request.
    """

    request_type: type[Request]
    request_id: Callable[[Request], str]
    response: Callable[[Response], Message]
    error: Callable[[Status, str], Message]


class OrderedStream(Generic[Request, Response]):
    """Takes the requests of one stream. Answers may come from any thread, in any order.

    Responses are held until those before them have gone. A request that fails is answered in band,
    and the stream lives on. With `MAX_PENDING` requests unanswered, the client is not read until some
    are, so that a stream's memory is bounded. Each request has a trace of its own, as if it were a call.
    """

    def __init__(
        self,
        call: StreamCall,
        stream_format: StreamFormat[Request, Response],
        submit: Submit[Request, Response],
        tracer: Tracer,
    ) -> None:
        self._call = call
        self._format = stream_format
        self._submit = submit
        self._tracer = tracer
        self._lock = threading.Lock()
        self._pending: deque[_StreamAnswer[Response]] = deque()
        self._half_closed = False
        self._draining = False
        call.on_cancel(self._cancel)

    def on_message(self, message: bytes) -> None:
        """Queue a request, or answer in band why not."""
        trace = self._tracer.begin(self._call.method, self._call.metadata)
        answer: _StreamAnswer[Response] = _StreamAnswer(self._flush, self._format, trace)
        with self._lock:
            self._pending.append(answer)
            if len(self._pending) == MAX_PENDING:
                self._call.pause_reading()
        try:
            request = parse(self._format.request_type, message)
            answer.request_id = self._format.request_id(request)
            answer.cancel = self._submit(request, answer, call_deadline=self._call.deadline, trace=trace)
        except Exception as error:  # noqa: BLE001 - one request's error must not end the stream
            answer.fail(error)

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
            while self._pending and (response := self._pending[0].response) is not None:
                if len(self._pending) == MAX_PENDING:
                    self._call.resume_reading()
                self._pending.popleft()
                self._call.send(response)
            if self._pending:
                return
            if self._half_closed:
                self._call.finish()
            elif self._draining:
                fail(self._call, ShuttingDownError())

    def _cancel(self) -> None:
        with self._lock:
            pending = list(self._pending)
        for answer in pending:
            answer.end_trace(CANCELLED)
            answer.cancel()


class _StreamAnswer(Generic[Response]):
    """The place of one response in its stream."""

    def __init__(
        self,
        ready: Callable[[], None],
        stream_format: "StreamFormat[Request, Response]",
        trace: RequestTrace | None,
    ) -> None:
        self._ready = ready
        self._trace = trace
        self._response = stream_format.response
        self._error = stream_format.error
        self.request_id = ""
        self.response: bytes | None = None
        self.cancel: Callable[[], object] = lambda: None

    def respond(self, response: Response) -> None:
        self.end_trace(OK)
        self._set(self._response(response))

    def fail(self, error: Exception) -> None:
        if not isinstance(error, ServingError):
            logger.error("unexpected error in a stream", exc_info=error)
        status = status_of(error)
        self.end_trace(status)
        self._set(self._error(status, self.request_id))

    def end_trace(self, status: Status) -> None:
        if self._trace is not None:
            self._trace.ended(code=status.code.value[0], reason=status.reason)

    def _set(self, message: Message) -> None:
        self.response = message.SerializeToString()
        self._ready()
