"""What a model would allocate is told from its shapes, before anything is."""

import contextlib
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inferry_proto.datatypes import DATATYPES, Arrays
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import ladder
from inferry_server.errors import ModelLoadError
from inferry_server.models import opening, sizes
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.repository import VersionFolder
from inferry_server.models.sizes import TRIED_BYTES, row_bytes, tried_sizes
from inferry_server.models.version import ServedVersion
from inferry_server.runtime import memory
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import KEPT_BYTES, OnnxSession
from inferry_server.signature import Signature, TensorSpec
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)

Axes = list[int | str]


def save_echo(repository: Path, axes: Axes, *, name: str = "echo") -> None:
    """`y = max(x, 0)`, float32 of any shape."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.onnx").write_bytes(model.SerializeToString())


def load(repository: Path, name: str = "echo") -> ServedVersion:
    served = load_version(
        VersionFolder(name, 1, repository / name / "1"), LoadOptions((CPU,), 1, 1, POLICY, ServerMetrics())
    )
    served.close(1)
    return served


@pytest.mark.parametrize("axes", [["N", 1 << 40], ["N", 1 << 20, 1 << 20, 1 << 20], [1, 1 << 40], ["N", 1 << 18, 2]])
def test_a_model_that_no_request_can_ask_is_refused_with_both_sizes(tmp_path: Path, axes: Axes) -> None:
    save_echo(tmp_path, axes)
    with pytest.raises(
        ModelLoadError, match=r"the inputs of one (row|request) have \d+ bytes .* at most 1048576 can wait"
    ):
        load(tmp_path)


def test_outputs_that_no_reply_can_carry_are_refused(tmp_path: Path) -> None:
    onnx_models.save_model(
        tmp_path / "echo" / "1" / "model.onnx",
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1 << 40])],
        [numpy_helper.from_array(np.array([1, 1 << 40]), "shape")],
    )
    with pytest.raises(ModelLoadError, match="the outputs of one row have 4398046511104 bytes"):
        load(tmp_path)


@pytest.mark.parametrize(("floats", "rows"), [(1 << 18, 1), (1 << 17, 2), ((1 << 16) - 1, 4), (1 << 15, 8), (1, 8)])
def test_requests_have_no_more_rows_than_may_wait(tmp_path: Path, floats: int, rows: int) -> None:
    save_echo(tmp_path, ["N", floats])
    served = load(tmp_path)
    assert served.max_request_rows == rows
    assert served.policy.max_batch_size == min(4, rows)


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 16))
def test_no_more_is_tried_than_a_bound_except_the_smallest(width: int, most: int) -> None:
    spec = TensorSpec("x", DATATYPES["FP32"], (-1, width))
    signature = Signature((spec,), (spec,))
    sizes = ladder(most)
    tried = tried_sizes(signature, sizes)
    assert tried == sizes[: len(tried)]
    assert tried[0] == sizes[0]
    assert all(size * row_bytes((spec, spec)) <= TRIED_BYTES for size in tried[1:])


def test_thousands_of_instances_are_refused_before_one_is_made(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    (tmp_path / "doubler" / "config.pbtxt").write_text("instance_group { count: 100000 }")
    with pytest.raises(ModelLoadError, match="has 100000 instances; expected at most 256"):
        load(tmp_path, "doubler")


@pytest.mark.parametrize(("tried_bytes", "gives"), [(1 << 10, 1), (1 << 26, 0)])
def test_what_a_row_takes_that_is_more_than_may_be_tried_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried_bytes: int, gives: int
) -> None:
    given: list[OnnxSession] = []
    monkeypatch.setattr(sizes, "TRIED_BYTES", tried_bytes)
    monkeypatch.setattr(OnnxSession, "give_memory_back", lambda session: given.append(session))
    save_echo(tmp_path, ["N", 1 << 10])
    load(tmp_path)
    assert len(given) == gives


def test_what_the_largest_batches_take_while_a_version_is_tried_goes_back_with_a_run_of_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_models.save_dense(tmp_path, width=3)
    ran: list[tuple[int, bool]] = []
    run = OnnxSession.run

    def shrinks(session: OnnxSession) -> bool:
        with contextlib.suppress(RuntimeError):  # ONNX Runtime's, for an entry that is not there
            return bool(session._run_options.get_run_config_entry("memory.enable_memory_arena_shrinkage"))
        return False

    def remember(session: OnnxSession, inputs: Arrays) -> dict[str, Any]:
        ran.append((len(inputs["x"]), shrinks(session)))
        return run(session, inputs)

    monkeypatch.setattr(OnnxSession, "run", remember)
    version = load(tmp_path, "dense")
    assert max(rows for rows, _ in ran) > 1
    version.instances[0].run({"x": np.zeros((2, 3), np.float32)})
    assert ran[-2:] == [(1, True), (2, False)]
    assert not any(shrunk for _, shrunk in ran[:-2])
    assert version.close(5)


def resident_bytes() -> int:
    """What the process has of its own, without what is free in glibc's heaps, where other tests leave holes."""
    memory.trim_heap()
    return memory.first_numbers(Path("/proc/self/status"))["RssAnon:"] << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is told by /proc")
def test_what_is_kept_of_the_outputs_of_a_long_request_goes_back_with_a_run_of_one_number(tmp_path: Path) -> None:
    save_echo(tmp_path, ["N", "L"])
    version = load(tmp_path)
    before = resident_bytes()
    version.instances[0].run({"x": np.ones((1, 40 << 20), np.float32)})
    assert resident_bytes() - before > 100 << 20
    version.give_outputs_back()
    assert resident_bytes() - before < 60 << 20
    assert version.close(5)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is told by /proc")
def test_what_is_kept_of_large_outputs_that_no_shape_told_goes_back_once(tmp_path: Path) -> None:
    onnx_models.save_model(
        tmp_path / "echo" / "1" / "model.onnx",
        [helper.make_node("Expand", ["one", "length"], ["y"])],
        [helper.make_tensor_value_info("length", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    version = load(tmp_path)
    runs: list[int] = []

    def run(length: int) -> None:
        runs.append(len(version.instances[0].run({"length": np.array([length])})["y"]))

    before = resident_bytes()
    run(40 << 20)  # nothing larger than a number has been computed before

    kept = resident_bytes()
    assert kept - before > 100 << 20
    original = OnnxSession.run
    with mock.patch.object(OnnxSession, "run", autospec=True, side_effect=original) as asked:
        version.give_outputs_back()
        assert resident_bytes() - before < 60 << 20
        version.give_outputs_back()
        assert asked.call_count == 1
        run(5)
        version.give_outputs_back()
    assert asked.call_count == 1
    assert runs == [40 << 20, 5]
    assert version.close(5)


def test_a_model_whose_every_output_is_large_is_run_once_to_give_them_back(tmp_path: Path) -> None:
    width = KEPT_BYTES // 4
    onnx_models.save_model(
        tmp_path / "echo" / "1" / "model.onnx",
        [helper.make_node("Expand", ["x", "shape"], ["z"]), helper.make_node("Add", ["z", "x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", width])],
        [numpy_helper.from_array(np.array([1, width]), "shape")],
    )
    (tmp_path / "echo" / "config.pbtxt").write_text("max_batch_size: 0")
    version = load(tmp_path)
    version.instances[0].run({"x": np.ones((1, 1), np.float32)})
    with mock.patch.object(OnnxSession, "run", autospec=True, side_effect=OnnxSession.run) as asked:
        for _ in range(3):
            version.give_outputs_back()
    assert asked.call_count == 1
    assert version.close(5)


def test_instances_for_which_there_is_no_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_models.save_doubler(tmp_path)
    (tmp_path / "doubler" / "config.pbtxt").write_text("instance_group { count: 3 }")
    monkeypatch.setattr(opening, "available_bytes", lambda: 200)
    with pytest.raises(ModelLoadError, match=r"3 instances of a model of .* bytes need .*; 200 are available"):
        load(tmp_path, "doubler")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts what is mapped on Linux only")
@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand"])
def test_a_constant_that_there_is_no_memory_for_fails_with_its_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    inputs = ["shape"] if operator == "ConstantOfShape" else ["one", "shape"]
    onnx_models.save_model(
        tmp_path / "echo" / "1" / "model.onnx",
        [
            helper.make_node(operator, inputs, ["large"]),
            helper.make_node("ReduceMax", ["large"], ["largest"], keepdims=0),
            helper.make_node("Add", ["x", "largest"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.array([1 << 14, 1 << 14]), "shape"),
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
        ],
    )
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    with pytest.raises(ModelLoadError, match="there is no memory for a tensor of 1073741824 bytes"):
        load(tmp_path)
