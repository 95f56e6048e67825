"""Two servers, one of which handles together what the other one handles one by one, answer and count the same."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferry_proto.open_inference_pb2 import ModelInferRequest
from testkit import onnx_models
from testkit.gated_server import gated_server
from testkit.rpc import infer_request
from testkit.sides import Side, doubled, picked
from testkit.waiting import wait_until


def added(a: int) -> bytes:
    return infer_request("adder", a=np.array(a, np.int64), b=np.array(1, np.int64)).SerializeToString()


def found(level: int) -> bytes:
    return infer_request("finder", pictures=np.full((1, 2, 2, 1), level, np.uint8)).SerializeToString()


def joined(value: float) -> bytes:
    rows = np.full((1, 2), value, np.float32)
    return infer_request("joiner", left=rows, right=rows).SerializeToString()


def echoed(text: str) -> bytes:
    return infer_request("echo", **{"in": np.array([[text, text]], object)}).SerializeToString()


def by_hand(value: float) -> bytes:
    request = ModelInferRequest(model_name="doubler")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([value] * 3)
    return request.SerializeToString()


values = st.floats(-100, 100, width=32)
ids = st.sampled_from(["", "", "", "a", "b", "long id", "é"])
MESSAGES = st.one_of(
    st.builds(lambda x, name: doubled(x, 1, 2, request_id=name), values, ids),
    st.builds(lambda x: doubled(x, 1, 2), values),
    st.builds(lambda x: doubled(x, 1, 2, priority=2), values),
    st.builds(lambda x: doubled(x, 1, 2, x, 4, 5), values),
    st.builds(picked, st.integers(0, 3), ids),
    st.builds(picked, st.integers(0, 5)),
    st.builds(added, st.integers(0, 9)),
    st.builds(found, st.integers(208, 211)),
    st.builds(joined, values),
    st.builds(echoed, st.sampled_from(["a", "bb"])),
    st.builds(by_hand, values),
    st.just(b"no request"),
    st.just(infer_request("nobody", x=np.zeros((1, 3), np.float32)).SerializeToString()),
    st.just(infer_request("doubler", x=np.zeros((1, 4), np.float32)).SerializeToString()),
)
REQUESTS = st.tuples(MESSAGES, st.sampled_from([None, None, 1.0, 5.0, 5.0, 5.5, -1.0]), st.booleans())


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """Two servers that serve the same: one handles together what the other one handles one by one."""
    repository = tmp_path_factory.mktemp("models")
    save_all(repository)
    with gated_server(repository) as one, gated_server(repository) as other:
        yield Side(one, together=True), Side(other, together=False)


def save_all(repository: Path) -> None:
    onnx_models.save_doubler(repository)
    onnx_models.save_picky(repository)
    onnx_models.save_scalar_adder(repository)
    onnx_models.save_finder(repository)
    (repository / "finder" / "config.pbtxt").write_text("max_batch_size: 8")
    onnx_models.save_two_inputs(repository)
    onnx_models.save_text_echo(repository)


def play(side: Side, requests: Sequence[tuple[bytes, float | None, bool]], *, late_s: float) -> Any:
    """Ask, cancel some while everything waits, let time pass, and let everything be computed."""
    there, now = side.there, side.there.clock()
    before = side.counted()
    there.gate.close()
    deadlines = [None if left_s is None else now + left_s for _, left_s, _ in requests]
    calls = side.ask([message for message, _, _ in requests], deadlines)
    for call, (_, _, is_cancelled) in zip(calls, requests, strict=True):
        if is_cancelled and not call.ended:
            call.cancelled()
    there.clock.advance(late_s)
    there.gate.open()
    wait_until(lambda: all(call.ended for call in calls), "every outcome")
    wait_until(lambda: not any(there.queued_rows(model) for model in ("doubler", "picky", "adder")), "an empty queue")
    there.clock.advance(2.0)  # later than `lately`
    after = side.counted()
    outcomes = [call.outcome for call in calls]
    return outcomes, {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name)}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUESTS, min_size=2, max_size=24), late_s=st.sampled_from([0.0, 0.0, 2.0]))
def test_together_every_request_gets_and_counts_as_what_it_does_one_by_one(
    sides: tuple[Side, Side], requests: list[tuple[bytes, float | None, bool]], late_s: float
) -> None:
    together, one_by_one = (play(side, requests, late_s=late_s) for side in sides)
    assert together == one_by_one
