"""ModelInfer and ModelStreamInfer: decode, submit, encode."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import Arrays, InferenceRequest, Timing
from inferry_server.codec import DecodedRequest, decode_infer_request
from inferry_server.encoding import encode_infer_response
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.request_trace import NoTracer, RequestTrace, Tracer
from inferry_server.rpc.call import Call, StreamCall, StreamHandler, UnaryHandler, fail
from inferry_server.services.deadlines import DeadlinePolicy
from inferry_server.services.messages import parse
from inferry_server.services.streams import Answer, OrderedStream, StreamFormat
from inferry_server.services.versions import with_version
from inferry_server.shared_memory import SharedMemoryRegions

Cancel = Callable[[], object]


class InferenceService:
    """Runs tensors through models. Thread-safe; never blocks on a model."""

    def __init__(
        self,
        registry: ModelRegistry,
        deadlines: DeadlinePolicy,
        regions: SharedMemoryRegions,
        tracer: Tracer | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._deadlines = deadlines
        self._regions = regions
        self._tracer = tracer or NoTracer()
        self._clock = clock

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {OPEN_INFERENCE["ModelInfer"].path: self.model_infer}

    def stream_handlers(self) -> dict[str, StreamHandler]:
        """Handlers by path."""
        return {OPEN_INFERENCE["ModelStreamInfer"].path: self.model_stream_infer}

    def model_infer(self, call: Call, message: bytes) -> None:
        """Queue a request; the batcher's thread answers it."""
        request = parse(ModelInferRequest, message)
        call.on_cancel(self.submit(request, _UnaryAnswer(call), call_deadline=call.deadline, trace=call.trace))

    def model_stream_infer(self, call: StreamCall) -> OrderedStream[ModelInferRequest, ModelInferResponse]:
        """Queue request after request; responses go out in the order of the requests."""
        return OrderedStream(call, STREAM_FORMAT, self.submit, self._tracer)

    def submit(
        self,
        request: ModelInferRequest,
        answer: Answer[ModelInferResponse],
        *,
        call_deadline: float | None,
        trace: RequestTrace | None,
    ) -> Cancel:
        """Check a request and queue it.

        Returns:
            What forgets the request, if nobody wants the answer any more.

        Raises:
            ServingError: the request was not queued; `answer` will not be called.
        """
        return with_version(
            lambda: self._registry.find(request.model_name, request.model_version, request_id=request.id),
            lambda model: self._submit_to(model, request, answer, call_deadline, trace),
        )

    def _submit_to(
        self,
        model: ServedVersion,
        request: ModelInferRequest,
        answer: Answer[ModelInferResponse],
        call_deadline: float | None,
        trace: RequestTrace | None,
    ) -> Cancel:
        if trace is not None:
            trace.concerns(model.model, model.version)
        decoded = decode_infer_request(
            request,
            model.signature,
            model=model.model,
            max_request_rows=model.max_request_rows,
            regions=self._regions,
        )
        queued = InferenceRequest(
            inputs=decoded.inputs,
            rows=decoded.rows,
            reply=_Reply(answer, request, decoded, model),
            lane=lane_of(decoded.priority),
            trace=trace,
            deadline=self._deadlines.deadline(
                self._clock(),
                call_deadline=call_deadline,
                timeout_s=decoded.timeout_s,
                model_objective_s=model.latency_objective_s,
            ),
        )
        model.batcher.submit(queued)
        return lambda: model.batcher.cancel(queued)


STREAM_FORMAT: StreamFormat[ModelInferRequest, ModelInferResponse] = StreamFormat(
    request_type=ModelInferRequest,
    request_id=lambda request: request.id,
    response=lambda response: ModelStreamInferResponse(infer_response=response),
    error=lambda status, request_id: ModelStreamInferResponse(
        error_message=status.message, infer_response=ModelInferResponse(id=request_id)
    ),
)


def lane_of(priority: int) -> Lane:
    """Whom a request is for: 1 is the highest priority and 0 none stated, as Triton counts them."""
    return Lane.BULK if priority > 1 else Lane.INTERACTIVE


@dataclass(frozen=True)
class _Reply:
    """Takes a request's outputs from the batcher and makes its response."""

    answer: Answer[ModelInferResponse]
    request: ModelInferRequest
    decoded: DecodedRequest
    model: ServedVersion

    def complete(
        self,
        outputs: Arrays,
        timing: Timing,  # noqa: ARG002 - the protocol has no field for it
    ) -> Callable[[], object]:
        response = encode_infer_response(
            self.request,
            self.decoded.outputs,
            outputs,
            version=self.model.version,
            labels=self.model.labels,
            batched=self.model.max_request_rows > 0,
        )
        return lambda: self.answer.respond(response)

    def fail(self, error: Exception) -> None:
        self.answer.fail(error)


@dataclass(frozen=True)
class _UnaryAnswer:
    call: Call

    def respond(self, response: ModelInferResponse) -> None:
        self.call.reply(response.SerializeToString())

    def fail(self, error: Exception) -> None:
        fail(self.call, error)
