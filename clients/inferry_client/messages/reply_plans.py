"""Replies of ModelInfer that differ from an earlier one in their contents alone, read without protobuf.

To read a reply by protobuf's messages takes some twenty microseconds between two calls, half of all that
the client adds to gRPC. So what lies around the contents is compared with an earlier reply's, and the
contents are cut out of their places.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from inferry_client.messages.replies import read_infer
from inferry_client.messages.tensors import before_contents
from inferry_client.results import InferResult
from inferry_proto.open_inference_pb2 import ModelInferResponse

_CONTENTS = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_MAX_BYTES = 1 << 16  # of a reply; to read a larger one is a small part of what it costs
_MAX_LENGTHS = 256  # of replies, for which there are plans
_MAX_ALIKE = 4  # plans for one length: versions of a model, and models whose names are as long

_plans: "dict[int, tuple[_Plan, ...]]" = {}


class _Output(NamedTuple):
    """An output of every reply that a plan fits: what stands before its contents, and where they lie."""

    name: str
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    before: bytes
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Plan:
    model: str
    version: str
    variant: str
    outputs: tuple[_Output, ...]


def read_wire(wire: bytes) -> ModelInferResponse | InferResult:
    """The result of a reply, where it differs from an earlier one in the contents alone, else its message.

    Raises:
        DecodeError: it is no message.
    """
    for plan in _plans.get(len(wire), ()):
        arrays, end = {}, 0
        for name, shape, dtype, before, start, stop in plan.outputs:
            if wire[end:start] != before:  # guard: reply-plan-fits
                break
            arrays[name] = np.ndarray(shape, dtype, wire[start:stop])
            end = stop
        else:
            return InferResult(plan.model, plan.version, arrays, "", plan.variant)
    reply = ModelInferResponse.FromString(wire)
    new = _plan(wire, reply)
    if new:
        if len(_plans) >= _MAX_LENGTHS:
            _plans.clear()
        _plans[len(wire)] = (new, *_plans.get(len(wire), ())[: _MAX_ALIKE - 1])
    return reply


def _plan(wire: bytes, reply: ModelInferResponse) -> _Plan | None:
    """The plan of replies like this one; None: it is large, has an id or elements of any length, or is unusual."""
    contents = reply.raw_output_contents[:]
    if not contents or reply.id or len(wire) > _MAX_BYTES:
        return None
    try:
        result = read_infer(reply)
    except ValueError:
        return None  # who reads it says so
    described = ModelInferResponse()
    described.CopyFrom(reply)
    described.ClearField("raw_output_contents")
    before, end, outputs = described.SerializeToString(), 0, []
    for (name, array), content in zip(result.outputs.items(), contents, strict=False):
        before += before_contents(_CONTENTS, len(content))
        start = end + len(before)
        if array.dtype.hasobject or wire[end:start] != before:
            return None
        end = start + len(content)
        outputs.append(_Output(name, array.shape, array.dtype, before, start, end))
        before = b""
    complete = end == len(wire) and len(outputs) == len(contents)
    return _Plan(result.model, result.version, result.variant, tuple(outputs)) if complete else None
