"""ModelInfer: decode, submit, encode."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import Arrays, InferenceRequest, Timing
from inferry_server.codec import DecodedRequest, decode_infer_request, encode_infer_response, parse_infer_request
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import Call, UnaryHandler, fail
from inferry_server.services.deadlines import DeadlinePolicy


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

    def model_infer(self, call: Call, message: bytes) -> None:
        """Queue a request; the batcher's thread answers it."""
        request = parse_infer_request(message)
        model = self._registry.find(request.model_name, request.model_version)
        decoded = decode_infer_request(
            request, model.signature, model=model.model, max_request_rows=model.max_request_rows
        )
        queued = InferenceRequest(
            inputs=decoded.inputs,
            rows=decoded.rows,
            reply=_InferReply(call, request, decoded, model),
            lane=lane_of(decoded.priority),
            deadline=self._deadlines.deadline(self._clock(), call_deadline=call.deadline, timeout_s=decoded.timeout_s),
        )
        model.batcher.submit(queued)
        call.on_cancel(lambda: model.batcher.cancel(queued))


def lane_of(priority: int) -> Lane:
    """Whom a request is for: 1 is the highest priority and 0 none stated, as Triton counts them."""
    return Lane.BULK if priority > 1 else Lane.INTERACTIVE


@dataclass(frozen=True)
class _InferReply:
    call: Call
    request: ModelInferRequest
    decoded: DecodedRequest
    model: ServedVersion

    def complete(self, outputs: Arrays, timing: Timing) -> None:  # noqa: ARG002 - the protocol has no field for it
        self.call.reply(
            encode_infer_response(
                self.request,
                outputs,
                self.model.signature,
                version=self.model.version,
                output_names=self.decoded.output_names,
            )
        )

    def fail(self, error: Exception) -> None:
        fail(self.call, error)
