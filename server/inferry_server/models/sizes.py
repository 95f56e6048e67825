"""How much memory rows of a model take, and what is too much, told from its shapes before anything is allocated."""

import math
from collections.abc import Sequence

from inferry_server.errors import ModelLoadError
from inferry_server.models.version_plan import VersionPlan
from inferry_server.signature import Signature, TensorSpec

TRIED_BYTES = 64 << 20
"""Of inputs and outputs of one run while a version is loaded on a CPU: ONNX Runtime keeps for good what a run took."""

_MOST_REPLY_BYTES = (2 << 30) - 1  # of a protobuf message
_POINTER_BYTES = 8


def row_bytes(specs: Sequence[TensorSpec]) -> int:
    """Bytes of one row of some tensors; a free length counts as 1, and so does a text of any length."""
    return sum(map(_tensor_bytes, specs))


def tried_sizes(signature: Signature, sizes: Sequence[int]) -> tuple[int, ...]:
    """Of ascending batch sizes those that may be tried while a version is loaded; the smallest in any case."""
    one = row_bytes(signature.inputs + signature.outputs)
    return tuple(size for size in sizes if size * one <= TRIED_BYTES) or tuple(sizes[:1])  # guard: sizes-tried


def check_sizes(plan: VersionPlan) -> None:
    """Refuse a model that no request can ask, or whose answer no message can carry.

    Raises:
        ModelLoadError: says how many bytes one row has, and how many it may have.
    """
    row = "one row" if plan.batched else "one request"
    taken, limit = row_bytes(plan.signature.inputs), plan.policy.max_queue_bytes
    if taken > limit:  # guard: sizes-inputs
        raise ModelLoadError(
            f"{plan.model_path}: the inputs of {row} have {taken} bytes ({plan.signature}); at most {limit} can wait "
            "(setting max_queue_bytes)"
        )
    given = row_bytes(plan.signature.outputs)
    if given > _MOST_REPLY_BYTES:  # guard: sizes-outputs
        raise ModelLoadError(
            f"{plan.model_path}: the outputs of {row} have {given} bytes ({plan.signature}); a reply has at most "
            f"{_MOST_REPLY_BYTES}"
        )


def _tensor_bytes(spec: TensorSpec) -> int:
    itemsize = _POINTER_BYTES if spec.datatype.dtype.hasobject else spec.datatype.dtype.itemsize
    return math.prod(max(1, axis) for axis in spec.shape) * itemsize
