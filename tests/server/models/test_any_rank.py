"""Models whose file does not state how many axes a tensor has: neither scalars nor rows, unless somebody says so."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper

from inferry_server.models.model_settings import ModelSettings
from inferry_server.runtime.graph_nodes import read_unranked
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import load_session
from testkit import onnx_models
from testkit.servers import running_server


def save(repository: Path, name: str, config: str = "") -> None:
    """`y = x`, of any number of axes."""
    path = repository / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opset = [helper.make_opsetid("", onnx_models.OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=onnx_models.IR_VERSION), path)
    if config:
        (path.parent.parent / "config.pbtxt").write_text(config)


def ask(client: triton.InferenceServerClient, model: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    tensor = triton.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return np.asarray(client.infer(model, [tensor]).as_numpy("y"), np.float32)


def test_tensors_of_any_rank_are_taken_as_they_come(tmp_path: Path) -> None:
    save(tmp_path, "free")
    rows = '{ name: "%s" data_type: TYPE_FP32 dims: [ 3 ] }'
    save(tmp_path, "rows", f"max_batch_size: 4 input {rows % 'x'} output {rows % 'y'}")
    with running_server(tmp_path) as server, triton.InferenceServerClient(str(server.grpc_address)) as client:
        for shape in ((), (5,), (2, 3), (1, 2, 3, 1, 2)):
            array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            np.testing.assert_array_equal(ask(client, "free", array), array)
        assert client.get_model_metadata("free").inputs[0].shape == [-1]
        ones = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(ask(client, "rows", ones), ones)
        assert client.get_model_config("rows").config.max_batch_size > 0
        with pytest.raises(triton.InferenceServerException, match=r"shape \[2, 3, 1\]; expected \[-1, 3\]"):
            ask(client, "rows", ones[..., None])


@pytest.mark.parametrize("shape", [None, [], [2], ["N", None]])
def test_a_scalar_has_a_shape(tmp_path: Path, shape: list[int | str | None] | None) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph([], "g", [value], [helper.make_tensor_value_info("z", TensorProto.FLOAT, [])])
    model = helper.make_model(graph)
    expected = frozenset({"x"}) if shape is None else frozenset()
    assert read_unranked(model.SerializeToString()) == expected
    onnx.save(model, tmp_path / "model.onnx")
    assert read_unranked(tmp_path / "model.onnx") == expected


def test_max_batch_size_wants_the_dims_of_what_may_have_any_rank(tmp_path: Path) -> None:
    save(tmp_path, "free")
    path = tmp_path / "free" / "1" / "model.onnx"
    session = load_session(path, providers=(CPU,), intra_op_num_threads=1)
    with pytest.raises(ValueError, match=r"x FP32 \[\.\.\.\]"):
        ModelSettings(max_batch_size=4).is_batched(session.signature)
    assert not ModelSettings().is_batched(session.signature)
