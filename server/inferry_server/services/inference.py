"""ModelInfer and ModelStreamInfer: decode, submit, encode."""

import time
from collections.abc import Callable
from functools import partial

from inferry_proto.datatypes import Arrays
from inferry_proto.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.batching.policy import INTERACTIVE
from inferry_server.batching.request import DeadlinePolicy, InferenceRequest, Timing
from inferry_server.errors import ServingError, ShedError
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import (
    AlikeHandler,
    Call,
    Cancel,
    Message,
    Outcome,
    StreamCall,
    StreamHandler,
    UnaryHandler,
)
from inferry_server.rpc.receivers import end_with
from inferry_server.rpc.statuses import Status
from inferry_server.services.coalescing import Coalescing
from inferry_server.services.degrading import CAPACITY, Degrading
from inferry_server.services.streams import OrderedStream, StreamFormat
from inferry_server.trace import NoTracer, RequestTrace, Tracer
from inferry_server.wire.encode import answered_by_variant, submessage
from inferry_server.wire.inputs import MOST_TEXTS
from inferry_server.wire.messages import parse
from inferry_server.wire.reading import IncomingRequest, RequestReader, accepted
from inferry_server.wire.shared_memory import SharedMemoryRegions


class InferenceService:
    """Runs tensors through models. Thread-safe; never blocks on a model."""

    def __init__(
        self,
        registry: ModelRegistry,
        deadlines: DeadlinePolicy,
        regions: SharedMemoryRegions,
        tracer: Tracer | None = None,
        *,
        most_texts: int = MOST_TEXTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._degrading = Degrading(registry)
        self._deadlines = deadlines
        self._reader = RequestReader(regions, most_texts=most_texts)
        self._tracer = tracer or NoTracer()
        self._clock = clock
        self._coalescing = Coalescing(registry, self._reader, deadlines, self._submit_alone, _Reply, clock)

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {OPEN_INFERENCE["ModelInfer"].path: self.model_infer}

    def alike_handlers(self) -> dict[str, AlikeHandler]:
        """Handlers, by path, of calls that came together."""
        return {OPEN_INFERENCE["ModelInfer"].path: self._coalescing.submit}

    def stream_handlers(self) -> dict[str, StreamHandler]:
        """Handlers by path."""
        return {OPEN_INFERENCE["ModelStreamInfer"].path: self.model_stream_infer}

    def model_infer(self, call: Call, message: Message) -> Cancel:
        """Queue a request; whoever computes it replies."""
        return self.submit(message, call, call_deadline=call.deadline, trace=call.trace, waited_s=call.waited_s)

    def model_stream_infer(self, call: StreamCall) -> OrderedStream:
        """Queue request after request; replies leave in the order of the requests."""
        ends_on_error = _STATUS_WANTED in call.metadata
        return OrderedStream(call, STREAM_FORMAT, self.submit, self._tracer, ends_on_error=ends_on_error)

    def submit(
        self,
        message: Message,
        outcome: Outcome,
        *,
        call_deadline: float | None,
        trace: RequestTrace | None,
        waited_s: float = 0.0,
    ) -> Cancel:
        """Check a request and queue it.

        Args:
            message: as it came.
            outcome: told of the outcome.
            call_deadline: of the call that brought it.
            trace: where it is sampled.
            waited_s: before it was read; an objective counts from its arrival.

        Returns:
            What forgets the request, if nobody wants the reply any more.

        Raises:
            ServingError: the request was not queued; `outcome` will not be called.
        """
        incoming = self._reader.receive(message, self._clock() - waited_s, trace)  # guard: intake-objective-counts
        return self._submit(incoming, outcome, call_deadline)

    def _submit(self, incoming: IncomingRequest, outcome: Outcome, call_deadline: float | None) -> Cancel:
        return self._registry.with_version(
            incoming.model_name,
            incoming.model_version,
            partial(self._submit_to, incoming, outcome, call_deadline),
            origin=incoming,
        )

    def _submit_alone(self, call: Call, incoming: IncomingRequest) -> None:
        try:
            call.on_cancel(self._submit(incoming, call, call.deadline))
        except Exception as error:  # noqa: BLE001 - no error may leave a call without a reply
            end_with(call, error)

    def _submit_to(
        self,
        incoming: IncomingRequest,
        outcome: Outcome,
        call_deadline: float | None,
        model: ServedVersion,
    ) -> Cancel:
        trace = incoming.trace
        if trace is not None:
            trace.concerns(model.model, model.version)
        request = self._reader.read(incoming, model)
        lane = request.lane
        queued = incoming.queued = InferenceRequest(
            inputs=request.inputs,
            rows=request.rows,
            reply=_Reply(outcome, request.encode),
            lane=lane,
            trace=trace,
            request_id=incoming.request_id,
            arrived_at=incoming.arrived_at,
            form=request.form,
            deadline=self._deadlines.deadline(
                incoming.arrived_at,
                call_deadline=call_deadline,
                timeout_s=request.timeout_s,
                model_objective_s=model.latency_objective_s,
            ),
        )
        batcher = model.batcher
        try:
            if lane is INTERACTIVE:  # guard: shed-no-bulk
                if batcher.relief.active:
                    self._leave(incoming, queued, model)
                if retry_after_s := batcher.shedding.retry_after_s:  # guard: shed-by-model
                    raise ShedError(retry_after_s=retry_after_s)
            batcher.submit(queued)
        except CAPACITY as refusal:
            return self._degrade(incoming, outcome, request.encode, queued, model, refusal)
        return partial(batcher.cancel, queued)  # guard: cancellation-reaches-queue

    def _leave(self, incoming: IncomingRequest, queued: InferenceRequest, model: ServedVersion) -> None:
        """Refuse a request as shed, if its version is relieved by a variant that is to compute it.

        Raises:
            ShedError: the version does not queue it.
        """
        now = queued.arrived_at
        model.batcher.relief.count(queued.rows, now, model.batcher.capacity_rows_per_s)
        waits_s = self._degrading.left_s(
            model, partial(accepted, incoming), rows=queued.rows, deadline=queued.deadline, now=now
        )
        if waits_s:
            raise ShedError(retry_after_s=waits_s)

    def _degrade(
        self,
        incoming: IncomingRequest,
        outcome: Outcome,
        encode: Callable[[Arrays], bytes],
        refused: InferenceRequest,
        model: ServedVersion,
        refusal: ServingError,
    ) -> Cancel:
        """Queue a request that its version has refused for one of the version's variants, or pass the refusal on."""

        def reply_of(variant: ServedVersion, precision: str) -> _Reply:
            named = answered_by_variant(variant.model, variant.version, precision)
            return _Reply(outcome, lambda outputs: encode(outputs) + named)

        variants = self._degrading.variants(model, partial(accepted, incoming))
        cancel = self._degrading.submit(refused, variants, reply_of, instead_of=model)
        if cancel is None:
            raise refusal
        return cancel


_STATUS_WANTED = ("triton_grpc_error", "true")  # metadata: a request that fails ends the stream with its status
# A client of a stream reads until a response with this parameter comes. Here a request has one response, the last.
_FINAL = {"triton_final_response": InferParameter(bool_param=True)}

STREAM_FORMAT = StreamFormat(
    request_id=lambda message: parse(ModelInferRequest, message).id,
    reply=submessage(
        ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number,
        ModelInferResponse(parameters=_FINAL).SerializeToString(),
    ),
    error=lambda status, request_id: ModelStreamInferResponse(
        error_message=status.message,
        infer_response=ModelInferResponse(id=request_id, parameters=_FINAL | _error_code(status)),
    ),
)


def _error_code(status: Status) -> dict[str, InferParameter]:
    """The parameter that tells a refusal's status code: in a stream, the protocol itself has only a message for it."""
    return {"error_code": InferParameter(int64_param=status.code.value[0])}


class _Reply:
    """Takes a request's outputs from the batcher and makes its reply."""

    __slots__ = ("_encode", "_outcome")

    def __init__(self, outcome: Outcome, encode: Callable[[Arrays], bytes]) -> None:
        self._outcome = outcome
        self._encode = encode

    def complete(
        self,
        outputs: Arrays,
        timing: Timing,  # noqa: ARG002 - the protocol has no field for it
    ) -> Callable[[], object]:
        return partial(self._outcome.reply, self._encode(outputs))

    def fail(self, error: Exception) -> None:
        self._outcome.fail(error)
