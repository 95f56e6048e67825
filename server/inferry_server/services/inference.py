"""ModelInfer and ModelStreamInfer: decode, submit, encode."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import Arrays, InferenceRequest, Timing
from inferry_server.codec import DecodedRequest, decode_infer_request, parse_infer_request
from inferry_server.encoding import encode_infer_response
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import Call, StreamCall, StreamHandler, UnaryHandler, fail
from inferry_server.services.deadlines import DeadlinePolicy
from inferry_server.services.streams import InferenceStream

Cancel = Callable[[], object]


class Answer(Protocol):
    """Where the outcome of one request goes: exactly one of the two is called, once, from any thread."""

    def respond(self, response: ModelInferResponse) -> None:
        """It was computed."""

    def fail(self, error: Exception) -> None:
        """It was not."""


class InferenceService:
    """Runs tensors through models. Thread-safe; never blocks on a model."""

    def __init__(
        self, registry: ModelRegistry, deadlines: DeadlinePolicy, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._deadlines = deadlines
        self._clock = clock

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {OPEN_INFERENCE["ModelInfer"].path: self.model_infer}

    def stream_handlers(self) -> dict[str, StreamHandler]:
        """Handlers by path."""
        return {OPEN_INFERENCE["ModelStreamInfer"].path: self.model_stream_infer}

    def model_infer(self, call: Call, message: bytes) -> None:
        """Queue a request; the batcher's thread answers it."""
        request = parse_infer_request(message)
        call.on_cancel(self.submit(request, _UnaryAnswer(call), call_deadline=call.deadline))

    def model_stream_infer(self, call: StreamCall) -> InferenceStream:
        """Queue request after request; responses go out in the order of the requests."""
        return InferenceStream(call, self.submit)

    def submit(self, request: ModelInferRequest, answer: Answer, *, call_deadline: float | None) -> Cancel:
        """Check a request and queue it.

        Returns:
            What forgets the request, if nobody wants the answer any more.

        Raises:
            ServingError: the request was not queued; `answer` will not be called.
        """
        model = self._registry.find(request.model_name, request.model_version)
        decoded = decode_infer_request(
            request, model.signature, model=model.model, max_request_rows=model.max_request_rows
        )
        queued = InferenceRequest(
            inputs=decoded.inputs,
            rows=decoded.rows,
            reply=_Reply(answer, request, decoded, model),
            lane=lane_of(decoded.priority),
            deadline=self._deadlines.deadline(
                self._clock(),
                call_deadline=call_deadline,
                timeout_s=decoded.timeout_s,
                model_objective_s=model.latency_objective_s,
            ),
        )
        model.batcher.submit(queued)
        return lambda: model.batcher.cancel(queued)


def lane_of(priority: int) -> Lane:
    """Whom a request is for: 1 is the highest priority and 0 none stated, as Triton counts them."""
    return Lane.BULK if priority > 1 else Lane.INTERACTIVE


@dataclass(frozen=True)
class _Reply:
    """Takes a request's outputs from the batcher and makes its response."""

    answer: Answer
    request: ModelInferRequest
    decoded: DecodedRequest
    model: ServedVersion

    def complete(self, outputs: Arrays, timing: Timing) -> None:  # noqa: ARG002 - the protocol has no field for it
        self.answer.respond(
            encode_infer_response(
                self.request,
                self.decoded.outputs,
                outputs,
                version=self.model.version,
                labels=self.model.labels,
                batched=self.model.max_request_rows > 0,
            )
        )

    def fail(self, error: Exception) -> None:
        self.answer.fail(error)


@dataclass(frozen=True)
class _UnaryAnswer:
    call: Call

    def respond(self, response: ModelInferResponse) -> None:
        self.call.reply(response.SerializeToString())

    def fail(self, error: Exception) -> None:
        fail(self.call, error)
