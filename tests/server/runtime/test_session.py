"""How ONNX Runtime is told to compute."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inferry_server.errors import ModelLoadError
from inferry_server.runtime.session import load_session
from testkit import onnx_models


def test_threads_wait_awake_within_a_batch_and_asleep_for_the_next_one(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    (model,) = tmp_path.glob("*/1/model.onnx")
    session = load_session(model, providers=["CPUExecutionProvider"], intra_op_num_threads=2)
    told = session._session.get_session_options().get_session_config_entry
    assert told("session.intra_op.allow_spinning") == "1"
    assert 0 < int(told("session.intra_op.spin_duration_us")) <= 1000
    assert told("session.force_spinning_stop") == "1"


def test_a_classifier_that_answers_maps_is_refused_with_the_way_out(tmp_path: Path) -> None:
    probabilities = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    answer = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, probabilities))
    graph = helper.make_graph(
        [helper.make_node("ZipMap", ["x"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_value_info("maps", answer)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    with pytest.raises(ModelLoadError, match=r"'maps' has type seq\(map.*ZipMap.*options=.'zipmap': False"):
        load_session(path, providers=["CPUExecutionProvider"], intra_op_num_threads=1)


def _echoing(path: Path, tensors: dict[str, int]) -> Path:
    """A model that gives each input back."""
    path.mkdir()
    onnx_models.save_model(
        path / "model.onnx",
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in tensors],
        [helper.make_tensor_value_info(name, kind, ["N", 2]) for name, kind in tensors.items()],
        [helper.make_tensor_value_info(f"{name}_out", kind, ["N", 2]) for name, kind in tensors.items()],
    )
    return path / "model.onnx"


def test_a_model_that_takes_texts_beside_bfloat16_is_refused_and_either_alone_is_run(tmp_path: Path) -> None:
    kinds = {"text": TensorProto.STRING, "half": TensorProto.BFLOAT16}
    with pytest.raises(ModelLoadError, match=r"input 'text' is BYTES and tensor 'half' BF16.*cast BF16 to FP32"):
        load_session(_echoing(tmp_path / "both", kinds), providers=["CPUExecutionProvider"], intra_op_num_threads=1)
    values = {"text": np.array([["a", "b"]], object), "half": np.array([[1, 2]], np.uint16)}
    for name, kind in kinds.items():
        path = _echoing(tmp_path / name, {name: kind})
        session = load_session(path, providers=["CPUExecutionProvider"], intra_op_num_threads=1)
        value = values[name].view(session.signature.inputs[0].datatype.dtype)
        assert session.run({name: value})[f"{name}_out"].tolist() == value.tolist()
