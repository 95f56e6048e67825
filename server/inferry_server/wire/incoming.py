"""A ModelInfer request as it came, and as it can be queued. Plain classes: one of each is made for every request."""

from collections.abc import Callable, Sequence

from inferry_proto.datatypes import Arrays
from inferry_server.batching.request import InferenceRequest, InputsForm
from inferry_server.trace import RequestTrace


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
        priority: from its `priority` parameter; 0 for none.
        encode: the response message, from the outputs of its rows.
        form: of its inputs, where a plan knows it.
    """

    __slots__ = ("encode", "form", "inputs", "priority", "rows", "timeout_s")

    def __init__(
        self,
        inputs: Arrays,
        rows: int,
        timeout_s: float | None,
        priority: int,
        encode: Callable[[Arrays], bytes],
        form: InputsForm | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.timeout_s = timeout_s
        self.priority = priority
        self.encode = encode
        self.form = form
