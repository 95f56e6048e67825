"""Which variants of a version may answer in its place. Pure: nothing is asked of a queue but its capacity.

Rules:

- A variant is a version whose manifest says which float32 graph it was made of, what precision it has, and what its
  gates measured: how many percentage points of accuracy it loses. A version without one of these is no variant.
- It is one of a version that computes that very graph, under the model's name in the manifest, and that is no variant
  itself. Callers must not notice another difference than the loss: tensors, labels, preprocessing and whether requests
  have rows are those of the version.
- The loss is within the server's bound (`max_variant_loss_points`).
- On the same kind of device it has to be faster: a slower one would take more of the device than it saves.
- Of several, the fastest goes first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from inferry_proto.manifest_pb2 import Gate, ModelManifest, Preprocessing
from inferry_proto.variants import PRECISIONS, Accepted
from inferry_server.models.class_labels import Labels
from inferry_server.signature import Signature

_GATE, _POINTS = "accuracy-drop", "points"


@dataclass(frozen=True)
class MadeOf:
    """What a variant's manifest says of it.

    Attributes:
        model: the name of the float32 model.
        sha256: of its graph, lower-case hexadecimal.
        precision: of the variant.
        points_lost: percentage points of test accuracy, as its gates measured them; below 0: it gained.
    """

    model: str
    sha256: str
    precision: str
    points_lost: float


class Judged(Protocol):
    """What the rules look at of a version that is served."""

    @property
    def model(self) -> str:
        """The name of its model."""

    @property
    def model_sha256(self) -> str:
        """The SHA-256 digest of its graph and weights, in lower-case hexadecimal."""

    @property
    def signature(self) -> Signature:
        """Its signature, as clients see it."""

    @property
    def labels(self) -> Labels:
        """The labels of its classes."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How pictures become its input."""

    @property
    def max_request_rows(self) -> int:
        """The most rows of one request; 0 where requests have no rows."""

    @property
    def provider(self) -> str:
        """The execution provider of ONNX Runtime that computes it."""

    @property
    def gpus(self) -> Sequence[int]:
        """The numbers of the GPUs that compute it; none on the CPU."""

    @property
    def share_of_cores(self) -> float:
        """The share of the cores that its instances take if all of them compute; may be above 1, and is 0 on a GPU."""

    @property
    def made_of(self) -> MadeOf | None:
        """The graph that it was made of; None for a version that is no variant."""

    @property
    def capacity_rows_per_s(self) -> float:
        """The rows that it computes a second in full batches; 0 before any was measured."""


V = TypeVar("V", bound=Judged)


def made_of(manifest: ModelManifest | None) -> MadeOf | None:
    """What a manifest says its version is a variant of; None for none."""
    if manifest is None or not manifest.HasField("variant_of") or manifest.precision not in PRECISIONS:
        return None
    base, lost = manifest.variant_of, _points_lost(manifest)
    if lost is None or not base.model_name or not base.model_sha256:
        return None
    return MadeOf(base.model_name, base.model_sha256, manifest.precision, lost)


def variants_of(base: Judged, served: Iterable[V], *, most_points: float) -> tuple[V, ...]:
    """Those of the served versions that are variants of one of them.

    Args:
        base: the version.
        served: all versions that answer.
        most_points: percentage points of accuracy that a variant may lose.
    """
    if base.made_of is not None:  # guard: variant-no-chain
        return ()
    return tuple(one for one in served if _is_variant(one, base, most_points))


def in_order(base: Judged, variants: Iterable[V], accepted: Accepted) -> Sequence[V]:
    """The variants that may answer a request in place of a version, the one to be asked first in front.

    Args:
        base: the version.
        variants: from `variants_of`.
        accepted: the precisions that the request accepts.
    """
    chosen = [one for one in variants if one.made_of and one.made_of.precision in accepted]  # guard: variant-accepted
    if not chosen:
        return ()
    own = base.capacity_rows_per_s
    rated = [(one.capacity_rows_per_s, one) for one in chosen]
    spare = [(rows, one) for rows, one in rated if one.provider != base.provider or _is_faster(rows, own)]
    return [one for _, one in sorted(spare, key=lambda each: -each[0])]


def share_a_device(one: Judged, other: Judged) -> bool:
    """Whether two versions take a device from one another: a GPU, or cores that do not suffice for both."""
    if one.gpus or other.gpus:
        return not set(one.gpus).isdisjoint(other.gpus)
    return one.share_of_cores + other.share_of_cores > 1.0  # guard: relief-device-shared


def _is_faster(rows_per_s: float, base_rows_per_s: float) -> bool:
    """Whether a variant computes more rows a second; what was not measured yet is thought to."""
    return not rows_per_s or not base_rows_per_s or rows_per_s > base_rows_per_s  # guard: variant-faster


def _is_variant(one: Judged, base: Judged, most_points: float) -> bool:
    made = one.made_of
    if made is None or (made.model, made.sha256) != (base.model, base.model_sha256):  # guard: variant-same-graph
        return False
    if not made.points_lost <= most_points:  # also where it is no number  # guard: variant-loss
        return False
    return _faces(one) == _faces(base)  # guard: variant-same-face


def _faces(version: Judged) -> tuple[object, ...]:
    """What callers see of a version."""
    return (version.signature, version.labels, version.preprocessing, version.max_request_rows > 0)


def _points_lost(manifest: ModelManifest) -> float | None:
    for gate in manifest.gates:
        if gate.name == _GATE and gate.outcome == Gate.PASSED and _POINTS in gate.figures:
            return gate.figures[_POINTS]
    return None
