"""What calls answer with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from inferry_proto.manifest_pb2 import Preprocessing

Tensor: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Classification:
    """One label of a picture.

    Attributes:
        index: position in the model's output.
        label: empty where the model has no labels.
        probability: in [0, 1].
    """

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Timing:
    """Where the server spent the time of a request, in microseconds."""

    decode_us: int
    queue_us: int
    compute_us: int


@dataclass(frozen=True)
class ClassifyResult:
    """The answer to `classify`.

    Attributes:
        model: its name.
        version: the one that answered.
        images: one entry a picture, in the order sent; each most probable first.
        timing: on the server.
        request_id: as it was given.
        variant: the precision of the variant that answered; empty where the model itself did.
    """

    model: str
    version: str
    images: tuple[tuple[Classification, ...], ...]
    timing: Timing
    request_id: str = ""
    variant: str = ""


@dataclass(frozen=True, init=False)  # a frozen class's own `__init__` would cost every call a microsecond
class InferResult:
    """The answer to `infer`.

    Attributes:
        model: its name.
        version: the one that answered.
        outputs: by name; read-only views of the reply. BYTES are `object` arrays of `bytes`.
        request_id: as it was given.
        variant: the precision of the variant that answered; empty where the model itself did.
    """

    model: str
    version: str
    outputs: Mapping[str, Tensor]
    request_id: str = ""
    variant: str = ""

    def __init__(
        self, model: str, version: str, outputs: Mapping[str, Tensor], request_id: str = "", variant: str = ""
    ) -> None:
        fields = self.__dict__
        fields["model"], fields["version"], fields["outputs"] = model, version, outputs
        fields["request_id"], fields["variant"] = request_id, variant


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that a model takes or gives.

    Attributes:
        name: as in requests.
        datatype: the protocol's (`UINT8`, `FP32`, ...).
        shape: -1 for axes of any length; the first is the batch dimension.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelDescription:
    """What a model takes and gives, for callers who prepare pictures themselves.

    Attributes:
        model: its name.
        version: the one described.
        inputs: the tensors it takes.
        outputs: the tensors it gives.
        labels: label i names class i; empty where it has none.
        preprocessing: for `inferry_proto.preprocessing`; None where pictures cannot be prepared.
        max_batch_size: the most rows one request may carry.
        model_sha256: of the bytes that are served; empty where the server does not tell.
    """

    model: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    max_batch_size: int
    model_sha256: str = ""


@dataclass(frozen=True)
class ModelMetadata:
    """A model as the Open Inference Protocol describes it."""

    model: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ModelStatus:
    """One version of the repository.

    Attributes:
        name: of the model.
        version: as a number in a string.
        state: READY, LOADING or UNAVAILABLE.
        reason: why it is not ready; else empty.
    """

    name: str
    version: str
    state: str
    reason: str

    @property
    def ready(self) -> bool:
        """Whether it can answer now."""
        return self.state == "READY"


@dataclass(frozen=True)
class ModelStatistics:
    """What a version has done since it was loaded.

    Attributes:
        model: its name.
        version: of the model.
        requests: answered.
        failures: requests that were not.
        rows: computed.
        batches: computed.
        request_s: all answered requests together took this long.
        queue_s: of it, waiting.
        compute_s: of it, computing.
    """

    model: str
    version: str
    requests: int
    failures: int
    rows: int
    batches: int
    request_s: float
    queue_s: float
    compute_s: float


@dataclass(frozen=True)
class ServerMetadata:
    """Who answers, and which extensions of the protocol work there."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class LateRequest:
    """A request that was slow or refused, and where its time went; the parts add up to `total_s`.

    Attributes:
        request_id: as its client chose it, shortened.
        trace_id: empty where it was not traced.
        cause: the main one, a sentence.
        reason: the kind of error; empty where it was answered.
        ended_at: in seconds since the epoch.
        rows: 0 where it was refused before they were known.
        lane: that it waited in.
        rows_ahead: that waited in it when the request came.
        total_s: from its arrival to its reply.
        read_s: until it was queued.
        queue_s: waiting for its batch.
        turn_s: what of that its batch waited for the cores.
        compute_s: putting the batch together, and running the model.
        reply_s: until its reply was made.
        deadline_s: from its arrival; None for none.
        batch_rows: of all requests in its batch; 0 where it was not computed.
        padded_rows: with which the model ran.
        batch_requests: in its batch.
        expected_s: what the batch should have taken.
    """

    request_id: str
    trace_id: str
    cause: str
    reason: str
    ended_at: float
    rows: int
    lane: str
    rows_ahead: int
    total_s: float
    read_s: float
    queue_s: float
    turn_s: float
    compute_s: float
    reply_s: float
    deadline_s: float | None
    batch_rows: int
    padded_rows: int
    batch_requests: int
    expected_s: float


@dataclass(frozen=True)
class ExplainedVersion:
    """The late requests of one version.

    Attributes:
        model: its name.
        version: of the model.
        slowest: of the latest minutes, the slowest first.
        refused: the latest first; failed ones too.
    """

    model: str
    version: str
    slowest: tuple[LateRequest, ...]
    refused: tuple[LateRequest, ...]
