"""One ModelStreamInfer stream: many requests at once, responses in the order of the requests."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from inferry_server.errors import ServingError
from inferry_server.rpc.call import StreamCall
from inferry_server.statuses import status_of

logger = logging.getLogger(__name__)

MAX_PENDING = 256  # requests of one stream that wait for their answer; beyond, the stream is not read


class Submit(Protocol):
    """Queues a request and returns what forgets it."""

    def __call__(
        self, request: ModelInferRequest, answer: "_StreamAnswer", *, call_deadline: float | None
    ) -> Callable[[], object]:
        """Raises ServingError where the request was not queued."""
        ...


class InferenceStream:
    """Takes the requests of one stream. Answers may come from any thread, in any order.

    Responses are held until those before them have gone. A request that fails is answered in band,
    and the stream lives on. With `MAX_PENDING` requests unanswered, the client is not read until some
    are, so that a stream's memory is bounded.
    """

    def __init__(self, call: StreamCall, submit: Submit) -> None:
        self._call = call
        self._submit = submit
        self._lock = threading.Lock()
        self._pending: deque[_StreamAnswer] = deque()
        self._half_closed = False
        call.on_cancel(self._cancel)

    def on_message(self, message: bytes) -> None:
        """Queue a request, or answer in band why not."""
        answer = _StreamAnswer(self)
        with self._lock:
            self._pending.append(answer)
            if len(self._pending) == MAX_PENDING:
                self._call.pause_reading()
        try:
            request = ModelInferRequest.FromString(message)
        except DecodeError as error:
            answer.fail_with(f"the request is not an inference.ModelInferRequest: {error}", "")
            return
        answer.request_id = request.id
        try:
            answer.cancel = self._submit(request, answer, call_deadline=self._call.deadline)
        except Exception as error:  # noqa: BLE001 - one request's error must not end the stream
            answer.fail(error)

    def on_half_close(self) -> None:
        """No more requests: the stream ends after the last response."""
        with self._lock:
            self._half_closed = True
        self.flush()

    def flush(self) -> None:
        """Send what can go out now, in order."""
        with self._lock:
            while self._pending and self._pending[0].response is not None:
                if len(self._pending) == MAX_PENDING:
                    self._call.resume_reading()
                self._call.send(self._pending.popleft().response or b"")
            if self._half_closed and not self._pending:
                self._call.finish()

    def _cancel(self) -> None:
        with self._lock:
            pending = list(self._pending)
        for answer in pending:
            answer.cancel()


class _StreamAnswer:
    """The place of one response in its stream."""

    def __init__(self, stream: InferenceStream) -> None:
        self._stream = stream
        self.request_id = ""
        self.response: bytes | None = None
        self.cancel: Callable[[], object] = lambda: None

    def respond(self, response: ModelInferResponse) -> None:
        self._set(ModelStreamInferResponse(infer_response=response))

    def fail(self, error: Exception) -> None:
        if not isinstance(error, ServingError):
            logger.error("unexpected error in a stream", exc_info=error)
        self.fail_with(status_of(error).message, self.request_id)

    def fail_with(self, message: str, request_id: str) -> None:
        self._set(ModelStreamInferResponse(error_message=message, infer_response=ModelInferResponse(id=request_id)))

    def _set(self, response: ModelStreamInferResponse) -> None:
        self.response = response.SerializeToString()
        self._stream.flush()
