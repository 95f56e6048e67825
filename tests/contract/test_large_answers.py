"""Answers that are too large are refused before they are computed; memory that is not there fails its asker alone."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import np_to_triton_dtype

from inferry_server.app import Server
from inferry_server.runtime import memory
from testkit import onnx_models
from testkit.servers import running_server
from testkit.waiting import wait_until

LIMIT, WIDE = 1 << 16, 1024  # bytes; columns of float32
ROWS = LIMIT // WIDE // 4


def save_wide(repository: Path) -> None:
    """`y` = each row of `x` so many times, float32 `[N, L]` to `[N, 1024, L]`."""
    onnx_models.save_model(
        repository / "wide" / "1" / "model.onnx",
        [helper.make_node("Unsqueeze", ["x", "middle"], ["z"]), helper.make_node("Tile", ["z", "often"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "L"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDE, "L"])],
        [numpy_helper.from_array(np.array([1]), "middle"), numpy_helper.from_array(np.array([1, WIDE, 1]), "often")],
    )


def save_summing(repository: Path) -> None:
    """`y` = the sum of a tensor of ones that is as long as `length` says: what it takes, no shape tells."""
    onnx_models.save_model(
        repository / "sum" / "1" / "model.onnx",
        [helper.make_node("Expand", ["one", "length"], ["ones"]), helper.make_node("ReduceSum", ["ones"], ["y"])],
        [helper.make_tensor_value_info("length", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    save_wide(tmp_path)
    save_summing(tmp_path)
    with running_server(tmp_path, max_reply_bytes=LIMIT) as running:
        yield running


def infer(server: Server, model: str, **inputs: np.ndarray) -> np.ndarray:
    tensors = []
    for name, array in inputs.items():
        tensors.append(triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        tensors[-1].set_data_from_numpy(array)
    with triton.InferenceServerClient(str(server.grpc_address)) as client:
        answer: np.ndarray = client.infer(model, tensors).as_numpy("y")
    return answer


@pytest.mark.parametrize(("rows", "length"), [(ROWS, 1), (1, ROWS), (4, ROWS // 4)])
def test_a_request_whose_answer_has_as_many_bytes_as_it_may_is_answered(server: Server, rows: int, length: int) -> None:
    assert infer(server, "wide", x=np.ones((rows, length), np.float32)).nbytes == LIMIT


@pytest.mark.parametrize(("rows", "length"), [(ROWS + 1, 1), (1, ROWS + 1), (5, ROWS // 4), (256, 1 << 10)])
def test_a_request_whose_answer_would_have_more_is_refused_with_both_sizes(
    server: Server, rows: int, length: int
) -> None:
    message = f"at least {rows * length * WIDE * 4} bytes; expected at most {LIMIT} .setting max_reply_bytes."
    with pytest.raises(triton.InferenceServerException, match=message) as refused:
        infer(server, "wide", x=np.ones((rows, length), np.float32))
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_batches_are_no_larger_than_their_outputs_may_be(server: Server) -> None:
    assert server.registry.find("wide", "").policy.max_batch_size == ROWS


def save_ones(repository: Path, *, texts: bool = False) -> None:
    """`y` = as many ones as `length` says: what it takes, no shape tells. As texts of 100 letters, if so wanted."""
    kind, one = (TensorProto.STRING, np.array(["1" * 100], object)) if texts else (TensorProto.FLOAT, np.ones(1, "f4"))
    onnx_models.save_model(
        repository / ("texts" if texts else "ones") / "1" / "model.onnx",
        [helper.make_node("Expand", ["one", "length"], ["y"])],
        [helper.make_tensor_value_info("length", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", kind, ["M"])],
        [numpy_helper.from_array(one, "one")],
    )


@pytest.mark.parametrize(("texts", "most"), [(False, LIMIT // 4), (True, LIMIT // 104)])
def test_outputs_that_turn_out_larger_than_an_answer_may_be_are_refused_and_others_answered(
    tmp_path: Path, texts: bool, most: int
) -> None:
    save_ones(tmp_path, texts=texts)
    name = "texts" if texts else "ones"
    with running_server(tmp_path, max_reply_bytes=LIMIT) as server:
        for length in (1, most, 3):
            assert len(infer(server, name, length=np.array([length]))) == length
        for length in (most + 1, 10 * most):
            message = f"the outputs have .* bytes; expected at most {LIMIT} .setting max_reply_bytes."
            with pytest.raises(triton.InferenceServerException, match=message) as refused:
                infer(server, name, length=np.array([length]))
            assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert len(infer(server, name, length=np.array([most]))) == most


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what a process may map")
def test_a_request_that_asks_for_memory_that_is_not_there_fails_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert infer(server, "sum", length=np.array([1 << 20])) == 1 << 20
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wait_until(lambda: resource.getrlimit(resource.RLIMIT_DATA) != before, "the bound follows what is left")
    with pytest.raises(triton.InferenceServerException, match="there is no memory for a tensor of 4294967296 bytes"):
        infer(server, "sum", length=np.array([1 << 30]))
    assert infer(server, "sum", length=np.array([1 << 20])) == 1 << 20
