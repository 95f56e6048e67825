"""A ModelInfer request's bytes to what can be queued: by the plan of an earlier request, else decoded in full.

A client's requests differ in their tensors' data and their ids; everything else, the header, is the same bytes again
and again. So the header is cut out without parsing what is inside. The first request of a kind is decoded and checked
in full (`decode.py`). What that told is kept under the bytes of its header, and holds for every request that repeats
them: then its tensors need only be as large as they were. Whatever differs in any way is decoded in full again, and so
hears of its faults in the protocol's order.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from inferry_proto.datatypes import Arrays
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.variants import PARAMETER, Accepted
from inferry_server.batching.policy import Lane, lane_of
from inferry_server.batching.request import InferenceRequest, InputsForm, form_of
from inferry_server.models.version import ServedVersion
from inferry_server.signature import Signature
from inferry_server.trace import RequestTrace
from inferry_server.wire.cutting import find_parts, id_starts
from inferry_server.wire.decode import DecodedRequest, accepted_variants, decode_infer_request
from inferry_server.wire.encode import ResponseTemplate, encode_infer_response, response_template
from inferry_server.wire.inputs import MOST_TEXTS
from inferry_server.wire.messages import parse
from inferry_server.wire.shared_memory import SharedMemoryRegions

_MOST_PLANS = 1024  # clients that vary more are decoded in full
_MOST_BEGINNINGS = 1024
_LARGEST_HEADER = 4096  # bytes
_ACCEPTS = PARAMETER.encode()


class IncomingRequest:
    """A request that names its model; what is inside is parsed only if that must be.

    Attributes:
        message: all of its bytes, or a view of them.
        model_name: which model is asked.
        model_version: which version, or label, of it; empty for none.
        request_id: empty for none.
        header: every field but the raw contents and the id, the two names included: what decides how to read them.
            None where anything is unusual, and the message must be parsed whole.
        raw_starts: where each of the raw_input_contents begins, where there is a header.
        raw_sizes: of each of them, in bytes.
        arrived_at: when it came, in monotonic seconds.
        trace: where it is sampled.
        queued: as its batcher gets it; None before.
    """

    __slots__ = (
        "arrived_at", "header", "message", "model_name", "model_version", "queued", "raw_sizes", "raw_starts",
        "request_id", "trace",
    )  # fmt: skip

    def __init__(
        self,
        message: bytes | memoryview,
        model_name: str,
        model_version: str,
        request_id: str,
        header: bytes | None = None,
        raw_starts: Sequence[int] = (),
        raw_sizes: Sequence[int] = (),
    ) -> None:
        self.message = message
        self.model_name = model_name
        self.model_version = model_version
        self.request_id = request_id
        self.header = header
        self.raw_starts = raw_starts
        self.raw_sizes = raw_sizes
        self.arrived_at = 0.0
        self.trace: RequestTrace | None = None
        self.queued: InferenceRequest | None = None


class ReadRequest:
    """A request that can be queued.

    Attributes:
        inputs: by name.
        rows: N; 1 for a model without batch dimension.
        timeout_s: from its `timeout` parameter; None for none.
        lane: in which it waits, by its `priority` parameter.
        encode: the response message, from the outputs of its rows.
        form: of its inputs, where a plan knows it.
    """

    __slots__ = ("encode", "form", "inputs", "lane", "rows", "timeout_s")

    def __init__(
        self,
        inputs: Arrays,
        rows: int,
        timeout_s: float | None,
        lane: Lane,
        encode: Callable[[Arrays], bytes],
        form: InputsForm | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.timeout_s = timeout_s
        self.lane = lane
        self.encode = encode
        self.form = form


def accepted(incoming: IncomingRequest) -> Accepted | None:
    """The precisions whose variants may answer a request; None where it does not say. Its tensors are not looked at.

    Raises:
        DecodingError: the bytes are no such message.
        InvalidRequestError: it says it in a way that means nothing.
    """
    header = incoming.header
    if header is not None and _ACCEPTS not in header:
        return None
    return accepted_variants(parse(ModelInferRequest, incoming.message if header is None else header).parameters)


class RequestReader:
    """Reads requests by the plan of an earlier one where there is one, else in full. Thread-safe.

    Args:
        regions: where tensors in shared memory are.
        most_texts: elements that a tensor of BYTES may have.
    """

    def __init__(self, regions: SharedMemoryRegions, *, most_texts: int = MOST_TEXTS) -> None:
        self._regions = regions
        self._most_texts = most_texts
        self._beginnings = KnownBeginnings()
        self._plans = PlanCache()

    def receive(self, message: bytes | memoryview, arrived_at: float, trace: RequestTrace | None) -> IncomingRequest:
        """Cut a request up; one that is unusual is parsed for its names.

        Args:
            message: as it came; the tensors of most requests will view it.
            arrived_at: when it came, in monotonic seconds.
            trace: where it is sampled.

        Raises:
            DecodingError: the bytes are no such message.
        """
        incoming = self._beginnings.find(message)  # guard: cost-known-beginning
        if incoming is None:
            incoming = cut_up(message)
            if incoming is None:
                parsed = parse(ModelInferRequest, message)
                incoming = IncomingRequest(message, parsed.model_name, parsed.model_version, parsed.id)
            else:
                self._beginnings.learn(incoming)
        incoming.arrived_at, incoming.trace = arrived_at, trace
        return incoming

    def plan_of(self, incoming: IncomingRequest, model: ServedVersion) -> "InferPlan | None":
        """How to read a request, if an earlier one like it was read in full."""
        header = incoming.header
        return None if header is None else self._plans.get(model.version, header, model.signature)

    def read(self, incoming: IncomingRequest, model: ServedVersion) -> ReadRequest:
        """Check a request against the model that it names, and take its tensors out.

        Raises:
            ServingError: as `decode_infer_request`, or the bytes inside are no such message.
        """
        if incoming.header is not None:
            plan = self._plans.get(model.version, incoming.header, model.signature)
            if plan is not None and (inputs := plan.read(incoming)) is not None:
                encode = partial(plan.response.encode, incoming.request_id)
                return ReadRequest(inputs, plan.rows, plan.timeout_s, plan.lane, encode, plan.form)
        request = parse(ModelInferRequest, incoming.message)
        decoded = decode_infer_request(
            request,
            model.signature,
            model=model.model,
            max_request_rows=model.max_request_rows,
            regions=self._regions,
            most_texts=self._most_texts,
        )
        model.check_reply_size(decoded.inputs)
        most_bytes = model.policy.max_reply_bytes
        template = response_template(request.model_name, model.version, decoded.outputs, most_bytes)
        if template is not None:
            self._plans.learn(model.version, incoming, InferPlan(decoded, template, model.signature))
        return ReadRequest(
            decoded.inputs,
            decoded.rows,
            decoded.timeout_s,
            lane_of(decoded.priority),
            _encoder(request, decoded, template, model, self._most_texts),
        )


def _encoder(
    request: ModelInferRequest,
    decoded: DecodedRequest,
    template: ResponseTemplate | None,
    model: ServedVersion,
    most_texts: int,
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
        most_texts=most_texts,
        most_bytes=model.policy.max_reply_bytes,
    ).SerializeToString()


class InferPlan:
    """How to read requests with one header, and to answer them. Immutable but for what it remembers.

    Args:
        decoded: the first of them.
        response: the template of the replies.
        signature: what it was checked against.
    """

    __slots__ = ("_sizes", "_tensors", "form", "lane", "response", "rows", "signature", "timeout_s")

    def __init__(self, decoded: DecodedRequest, response: ResponseTemplate, signature: Signature) -> None:
        places = {name: place for place, name in enumerate(decoded.order)}
        self._tensors = [(name, array.shape, array.dtype, places[name]) for name, array in decoded.inputs.items()]
        self._sizes = [decoded.inputs[name].nbytes for name in decoded.order]
        self.response = response
        self.signature = signature
        self.rows = decoded.rows
        self.form = form_of(decoded.inputs, decoded.rows)
        self.timeout_s = decoded.timeout_s
        self.lane = lane_of(decoded.priority)

    def holds_for(self, incoming: IncomingRequest) -> bool:
        """Whether it holds for every request with this header, which is that of the first one.

        It does not where data lies outside raw contents (their bytes are part of the header, or of
        shared memory), or where sizes are not those of the shape, as with BYTES.
        """
        texts = any(dtype.hasobject for _, _, dtype, _ in self._tensors)
        return not texts and len(incoming.raw_sizes) == len(self._tensors)  # guard: plans-texts-have

    def read(self, incoming: IncomingRequest) -> Arrays | None:
        """The inputs by name, viewing the message wherever they begin in it.

        Returns:
            None where their data has another size than it must.
        """
        if incoming.raw_sizes != self._sizes:  # guard: plans-data-large
            return None
        inputs: dict[str, np.ndarray[Any, Any]] = {}
        starts = incoming.raw_starts
        for name, shape, dtype, place in self._tensors:
            inputs[name] = np.ndarray(shape, dtype, incoming.message, starts[place])
        return inputs

    def read_rows(self, alike: Sequence[IncomingRequest]) -> Arrays | None:
        """The inputs of requests that all have the header, by name, a row for each; copied.

        Returns:
            None where they are not of one row and one tensor, or their data have another size than they must.
        """
        if self.rows != 1 or len(self._tensors) != 1:
            return None
        [(name, shape, dtype, _)] = self._tensors
        pieces = []
        for incoming in alike:
            if incoming.raw_sizes != self._sizes:
                return None
            start = incoming.raw_starts[0]
            pieces.append(incoming.message[start : start + incoming.raw_sizes[0]])
        return {name: np.ndarray((len(pieces), *shape[1:]), dtype, b"".join(pieces))}


class PlanCache:
    """Plans by version and header. Any thread may call; at worst a plan is made twice."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, bytes], InferPlan] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, version: str, header: bytes, signature: Signature) -> InferPlan | None:
        """The plan for a header.

        Args:
            version: that answers; the header names the model.
            header: of the request.
            signature: of the version as it is served now; a plan that was checked against another, of
                one loaded before, is none.
        """
        plan = self._plans.get((version, header))  # guard: cost-requests-asked
        return plan if plan is not None and plan.signature is signature else None  # guard: plans-they-hold

    def learn(self, version: str, incoming: IncomingRequest, plan: InferPlan) -> None:
        """Keep a plan, if it holds for other requests than the one it was made from."""
        header = incoming.header
        if header is None or len(header) > _LARGEST_HEADER or not plan.holds_for(incoming):
            return
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()  # rare, and cheaper than to keep account of every use
        self._plans[version, header] = plan


class KnownBeginnings:
    """Requests that were cut up, by their bytes before the tensor's data, without the id. Any thread may call.

    Raw contents end a request. If there are those of one tensor, what `cut_up` says depends only on the request's
    length and on the bytes before them, of which those of the id are nothing but the id. Clients repeat the other bytes
    with every request.
    """

    def __init__(self) -> None:
        # By the length of the request: where raw contents begin, where the id begins and ends, 0 without an id, and
        # what is known by the bytes before the raw contents.
        self._known: dict[int, tuple[int, int, int, dict[bytes, _Known]]] = {}
        self._count = 0

    def find(self, message: bytes | memoryview) -> IncomingRequest | None:
        """As `cut_up`, of a request that begins like an earlier one of the same length; None for any other."""
        known = self._known.get(len(message))  # guard: beginnings-of-one-length
        if known is None:
            return None
        start, id_start, id_stop, beginnings = known
        like = beginnings.get(_beginning(message, start, id_start, id_stop) if id_stop else bytes(message[:start]))
        if like is None:
            return None
        name, version, header, starts, sizes = like
        try:
            request_id = str(message[id_start:id_stop], "utf-8") if id_stop else ""  # guard: beginnings-own-id
        except UnicodeDecodeError:
            return None
        return IncomingRequest(message, name, version, request_id, header, starts, sizes)

    def learn(self, incoming: IncomingRequest) -> None:
        """Keep what `cut_up` said, if it holds for all requests of this length that begin alike."""
        message, header, starts = incoming.message, incoming.header, incoming.raw_starts
        if header is None or len(starts) != 1 or starts[0] > _LARGEST_HEADER:
            return
        if self._count >= _MOST_BEGINNINGS:
            self._known, self._count = {}, 0  # rare, and cheaper than to keep account of every use
        id_start = id_starts(message) if incoming.request_id else 0
        places = starts[0], id_start, id_start + len(incoming.request_id.encode())
        *known, beginnings = self._known.setdefault(len(message), (*places, {}))
        if tuple(known) == places:  # of others as long, those that came first are known
            names = incoming.model_name, incoming.model_version
            beginnings[_beginning(message, *places)] = *names, header, starts, incoming.raw_sizes
            self._count += 1


_Known = tuple[str, str, bytes, Sequence[int], Sequence[int]]
"""Of a request, what is the same in all that begin alike: model, version, header, and its tensor's place and size."""


def _beginning(message: bytes | memoryview, start: int, id_start: int, id_stop: int) -> bytes:
    """The bytes before raw contents, without those of the id; how many these are, the byte before them says."""
    return b"".join((message[:id_start], message[id_stop:start]))


def cut_up(message: bytes | memoryview) -> IncomingRequest | None:
    """A request by its parts; None where anything is unusual, and the whole message must be parsed."""
    found = find_parts(message)
    if found is None:
        return None
    name, version, request_id, header, starts, sizes = found
    return IncomingRequest(message, name, version, request_id, header, starts, sizes)
