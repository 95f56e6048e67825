"""Whatever is done to the bytes of a request, a reader that knows plans says of it what one says that knows none."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ServingError
from inferry_server.models.version import ServedVersion
from inferry_server.signature import Signature, TensorSpec
from inferry_server.wire import reading
from inferry_server.wire.reading import RequestReader
from inferry_server.wire.shared_memory import SharedMemoryRegions

SIGNATURE = Signature(
    (TensorSpec("x", DATATYPES["FP32"], (-1, 3)), TensorSpec("mask", DATATYPES["UINT8"], (-1, -1))),
    (TensorSpec("y", DATATYPES["FP32"], (-1, 3)), TensorSpec("z", DATATYPES["UINT8"], (-1, -1))),
)
MODEL = cast(
    "ServedVersion",
    SimpleNamespace(
        model="m",
        version="1",
        signature=SIGNATURE,
        max_request_rows=8,
        labels={},
        check_reply_size=lambda _: None,
        policy=BatchingPolicy(max_batch_size=8, max_request_rows=8, max_queue_size=8, max_queue_bytes=1 << 20),
    ),
)
CASES = 4000  # of each seed: a second


def whole_requests() -> list[bytes]:
    """Requests of all kinds that are right, as clients write them."""
    wires = []
    for rows, width, swapped, fields in (
        (1, 2, False, {}),
        (2, 2, True, {"id": "a"}),
        (1, 2, False, {"id": "b", "model_version": "1"}),
        (3, 0, False, {}),
    ):
        message = ModelInferRequest(model_name="m", **cast("Any", fields))
        tensors = [
            ("x", "FP32", [rows, 3], bytes(range(rows * 12))),
            ("mask", "UINT8", [rows, width], b"m" * rows * width),
        ]
        for name, datatype, shape, data in tensors[::-1] if swapped else tensors:
            message.inputs.add(name=name, datatype=datatype, shape=shape)
            message.raw_input_contents.append(data)
        wires.append(message.SerializeToString())
        message.parameters["priority"].uint64_param = rows
        message.parameters["timeout"].int64_param = 1000 * rows
        message.outputs.add(name="y")
        wires.append(message.SerializeToString())
    return wires


def spoil(wire: bytes, others: Sequence[bytes], random: np.random.Generator) -> bytes:
    """The bytes with something changed, cut out, put in or said twice."""
    data = bytearray(wire)
    for _ in range(random.integers(1, 3)):
        at, to = sorted(int(place) for place in random.integers(0, len(data) + 1, 2))
        match random.integers(7):
            case 0:
                data[min(at, len(data) - 1) : at + 1] = bytes(random.integers(0, 256, 1, np.uint8))
            case 1:
                del data[at : min(to, at + 9)]
            case 2:
                data[at:at] = data[at : min(to, at + 40)]
            case 3:
                data += others[int(random.integers(len(others)))]  # protobuf merges them
            case 4:
                data[at:at] = bytes(random.integers(0, 256, random.integers(1, 5), np.uint8))
            case 5:
                if at < len(data):
                    data[at] ^= 1 << random.integers(8)
            case _:
                data += b"\x3a\x03" + b"abc"  # one more of the raw contents
        if not data:
            return wire
    return bytes(data)


def outcome(reader: RequestReader, wire: bytes) -> tuple[Any, ...]:
    """What a reader makes of a message: an error with its words, or tensors, and the answer to them."""
    try:
        read = reader.read(reader.receive(wire, 0.0, None), MODEL)
    except ServingError as error:
        return type(error), str(error)
    inputs = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in read.inputs.items()}
    answer = ModelInferResponse.FromString(read.encode({"y": read.inputs["x"], "z": read.inputs["mask"]}))
    return inputs, read.rows, read.timeout_s, read.lane, answer.SerializeToString(deterministic=True)


def differences(seed: int, warm: Callable[[], RequestReader]) -> tuple[list[bytes], int]:
    """Messages of which two readers say different things, and how many of all were right."""
    random, requests = np.random.default_rng(seed), whole_requests()
    knowing, right, different = warm(), 0, []
    for wire in requests:
        knowing.read(knowing.receive(wire, 0.0, None), MODEL)
    for _ in range(CASES):
        wire = spoil(requests[int(random.integers(len(requests)))], requests, random)
        expected = outcome(RequestReader(SharedMemoryRegions(allowed=False)), wire)
        if outcome(knowing, wire) != expected:
            different.append(wire)
        right += isinstance(expected[0], dict)
    return different, right


@pytest.mark.parametrize("seed", range(3))
def test_a_spoiled_request_is_read_by_plans_as_it_is_in_full(seed: int) -> None:
    different, right = differences(seed, lambda: RequestReader(SharedMemoryRegions(allowed=False)))
    assert different == []
    assert right > CASES // 50  # else nothing but errors would be compared


@pytest.mark.parametrize("fault", ["sizes", "header"])
def test_a_plan_that_is_believed_too_much_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: plans that do not look at sizes, and plans that are found by less than the header."""
    if fault == "sizes":

        def read(plan: Any, incoming: Any) -> Any:
            incoming.raw_sizes = plan._sizes
            return whole(plan, incoming)

        whole = reading.InferPlan.read
        monkeypatch.setattr(reading.InferPlan, "read", read)
    else:
        found = reading.PlanCache.get
        monkeypatch.setattr(
            reading.PlanCache, "get", lambda cache, version, header, signature: found(cache, version, header, signature)
            or next(iter(cache._plans.values()), None),
        )  # fmt: skip
    try:
        different, _ = differences(0, lambda: RequestReader(SharedMemoryRegions(allowed=False)))
    except (TypeError, ValueError):  # a plan that fits nothing
        return
    assert different
