"""A ModelInfer request's bytes to what can be queued, and its outputs to the response's bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from inferry_proto.datatypes import Arrays
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.batching.request import InferenceRequest
from inferry_server.models.version import ServedVersion
from inferry_server.trace import RequestTrace
from inferry_server.wire.decode import DecodedRequest, decode_infer_request
from inferry_server.wire.encode import ResponseTemplate, encode_infer_response, response_template
from inferry_server.wire.layout import read_layout
from inferry_server.wire.messages import parse
from inferry_server.wire.plans import InferPlan, PlanCache
from inferry_server.wire.shared_memory import SharedMemoryRegions


class IncomingRequest:
    """A request that names its model; what is inside is parsed only if that must be.

    Args:
        message: as it came.
        arrived_at: when it came, in monotonic seconds.
        trace: where it is sampled.

    Attributes:
        queued: as its batcher gets it; None before.

    Raises:
        DecodingError: the bytes are no such message, or none.
    """

    __slots__ = ("arrived_at", "layout", "message", "model_name", "model_version", "queued", "request_id", "trace")

    def __init__(self, message: bytes, arrived_at: float = 0.0, trace: RequestTrace | None = None) -> None:
        self.message = message
        self.arrived_at, self.trace = arrived_at, trace
        self.queued: InferenceRequest | None = None
        layout = self.layout = read_layout(message)
        if layout is None:
            parsed = parse(ModelInferRequest, message)
            self.model_name, self.model_version, self.request_id = parsed.model_name, parsed.model_version, parsed.id
        else:
            self.model_name, self.model_version = layout.model_name, layout.model_version
            self.request_id = layout.request_id


@dataclass(slots=True)
class ReadRequest:
    """A request that can be queued.

    Attributes:
        inputs: by name.
        rows: N; 1 for a model without batch dimension.
        timeout_s: from its `timeout` parameter; None for none.
        priority: from its `priority` parameter; 0 for none.
        encode: the response message, from the outputs of its rows.
    """

    inputs: Arrays
    rows: int
    timeout_s: float | None
    priority: int
    encode: Callable[[Arrays], bytes]


class RequestReader:
    """Reads requests by the plan of an earlier one where there is one, else in full. Thread-safe."""

    def __init__(self, regions: SharedMemoryRegions) -> None:
        self._regions = regions
        self._plans = PlanCache()

    def read(self, incoming: IncomingRequest, model: ServedVersion) -> ReadRequest:
        """Check a request against the model that it names, and take its tensors out.

        Raises:
            ServingError: as `decode_infer_request`, or the bytes inside are no such message.
        """
        layout = incoming.layout
        if layout is not None:
            plan = self._plans.get(model.version, layout.header, model.signature)
            if plan is not None and (inputs := plan.read(layout, incoming.message)) is not None:
                encode = partial(plan.response.encode, incoming.request_id)
                return ReadRequest(inputs, plan.rows, plan.timeout_s, plan.priority, encode)
        request = parse(ModelInferRequest, incoming.message)
        decoded = decode_infer_request(
            request,
            model.signature,
            model=model.model,
            max_request_rows=model.max_request_rows,
            regions=self._regions,
        )
        template = response_template(request.model_name, model.version, decoded.outputs)
        if layout is not None and template is not None:
            self._plans.learn(model.version, layout, InferPlan(decoded, template, model.signature))
        return ReadRequest(
            decoded.inputs,
            decoded.rows,
            decoded.timeout_s,
            decoded.priority,
            _encoder(request, decoded, template, model),
        )


def _encoder(
    request: ModelInferRequest, decoded: DecodedRequest, template: ResponseTemplate | None, model: ServedVersion
) -> Callable[[Arrays], bytes]:
    if template is not None:
        return partial(template.encode, request.id)
    return lambda outputs: encode_infer_response(
        request,
        decoded.outputs,
        outputs,
        version=model.version,
        labels=model.labels,
        batched=model.max_request_rows > 0,
    ).SerializeToString()
