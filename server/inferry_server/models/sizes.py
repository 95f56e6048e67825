"""How much memory rows of a model take, and what is too much, told from its shapes before anything is allocated."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from inferry_proto.datatypes import Arrays
from inferry_server.errors import ModelLoadError
from inferry_server.models.version_plan import VersionPlan
from inferry_server.signature import Signature, TensorSpec

logger = logging.getLogger(__name__)

TRIED_BYTES = 64 << 20
"""The most bytes that one run may take while a version is loaded on a CPU: ONNX Runtime keeps its memory for good."""

_POINTER_BYTES = 8


def row_bytes(specs: Sequence[TensorSpec]) -> int:
    """Bytes of one row of some tensors; a free length counts as 1, and so does a text of any length."""
    return sum(map(_tensor_bytes, specs))


def tried_sizes(signature: Signature, sizes: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes, of some in ascending order, that may be tried while a version is loaded; always the smallest."""
    one = row_bytes(signature.inputs + signature.outputs)
    return tuple(size for size in sizes if size * one <= TRIED_BYTES) or tuple(sizes[:1])  # guard: sizes-tried


def keeps_too_much(signature: Signature) -> bool:
    """Whether a single row takes more than may be tried, and so more than ONNX Runtime should keep after a run."""
    return row_bytes(signature.inputs + signature.outputs) > TRIED_BYTES


def reply_bytes(signature: Signature, inputs: Arrays) -> int:
    """Bytes of the outputs for some inputs, as far as shapes tell: a length that they do not tell counts as 1.

    Args:
        signature: of the model.
        inputs: by name.
    """
    lengths: dict[str, int] = {}
    for spec in signature.inputs:
        for place, length in enumerate(inputs[spec.name].shape):
            if (name := spec.axis_name(place)) is not None:
                lengths[name] = length
    rows = len(inputs[signature.inputs[0].name]) if signature.has_batch_dimension else 1
    return sum(_output_bytes(spec, lengths, rows) for spec in signature.outputs)


def _output_bytes(spec: TensorSpec, lengths: Mapping[str, int], rows: int) -> int:
    shape = list(spec.shape)
    for place, axis in enumerate(shape):
        if axis == -1:
            shape[place] = lengths.get(spec.axis_name(place) or "", 1)
    if spec.shape[:1] == (-1,):
        shape[0] = max(shape[0], rows)
    return math.prod(shape) * _item_bytes(spec)


def with_bounded_batches(plan: VersionPlan) -> VersionPlan:
    """The plan, with batches no larger than their outputs may be."""
    most = max(1, plan.policy.max_reply_bytes // max(1, row_bytes(plan.signature.outputs)))
    if not plan.batched or most >= plan.policy.max_batch_size:
        return plan
    logger.warning(
        "batches have at most %d rows: the outputs of more have more than %d bytes (setting max_reply_bytes)",
        most, plan.policy.max_reply_bytes, extra={"model": str(plan.folder)},
    )  # fmt: skip
    return replace(plan, policy=replace(plan.policy, max_batch_size=most))  # guard: sizes-batch-outputs


def with_bounded_requests(plan: VersionPlan) -> VersionPlan:
    """The plan, with requests no larger than what may wait: a larger one would find no room however often it came."""
    policy = plan.policy
    most = max(1, policy.max_queue_bytes // max(1, row_bytes(plan.signature.inputs)))
    if not plan.batched or most >= policy.max_request_rows:
        return plan
    logger.warning(
        "requests have at most %d rows: the inputs of more have more than %d bytes (setting max_queue_bytes)",
        most, policy.max_queue_bytes, extra={"model": str(plan.folder)},
    )  # fmt: skip
    bounded = replace(policy, max_request_rows=most, max_batch_size=min(policy.max_batch_size, most))
    return replace(plan, policy=bounded)  # guard: sizes-request-inputs


def check_sizes(plan: VersionPlan) -> None:
    """Refuse a model one row of which is too large for a request's message, or for a reply's.

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
    given, limit = row_bytes(plan.signature.outputs), plan.policy.max_reply_bytes
    if given > limit:  # guard: sizes-outputs
        raise ModelLoadError(
            f"{plan.model_path}: the outputs of {row} have {given} bytes ({plan.signature}); at most {limit} are "
            "computed (setting max_reply_bytes)"
        )


def _tensor_bytes(spec: TensorSpec) -> int:
    return math.prod(max(1, axis) for axis in spec.shape) * _item_bytes(spec)


def _item_bytes(spec: TensorSpec) -> int:
    return _POINTER_BYTES if spec.datatype.dtype.hasobject else spec.datatype.dtype.itemsize
