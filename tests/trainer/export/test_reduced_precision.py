"""Variants of networks of many kinds: float16 keeps what ONNX fixes, int8 keeps what it would spoil."""

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.evaluation.classifier import Classifier, make_classifier
from inferry_trainer.export.candidate import make_probes
from inferry_trainer.export.convert import export_classifier
from inferry_trainer.export.half_precision import to_float16
from inferry_trainer.export.onnx_model import load_onnx_model
from inferry_trainer.export.quantize import quantize_int8

layers = keras.layers
SHAPE = (12, 12, 3)


def network(*middle: Any, last: Any) -> Classifier:
    keras.utils.set_random_seed(4)
    first, pooling = layers.Conv2D(8, 3, activation="relu"), layers.GlobalAveragePooling2D()
    *others, classes = [layer.from_config(layer.get_config()) for layer in (*middle, last)]  # they were made unseeded
    model = keras.Sequential([keras.Input(SHAPE), first, *others, pooling, classes])
    for variable in model.trainable_variables:
        variable.assign(variable * 2.0 + 0.01)
    return make_classifier(model)


def answers(model: onnx.ModelProto, images: UInt8Array, folder: Path) -> Float32Array:
    onnx.checker.check_model(model, full_check=True)
    (folder / "variant.onnx").write_bytes(model.SerializeToString())
    return load_onnx_model(folder / "variant.onnx").run(images)


def exported(classifier: Classifier, folder: Path) -> Path:
    export_classifier(classifier, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize(
    "middle",
    [
        [layers.UpSampling2D(3, interpolation="bilinear")],
        [layers.Resizing(7, 17), layers.Conv2D(4, 3)],
        [layers.Resizing(23, 5, interpolation="nearest")],
        [layers.Resizing(4, 6, antialias=True)],
        [layers.LayerNormalization(epsilon=1e-12), layers.UnitNormalization()],
        [layers.Conv2D(8, 3, groups=4, activation="gelu"), layers.LeakyReLU()],
        [layers.Reshape((100, 8)), layers.SimpleRNN(6, activation="sparse_sigmoid"), layers.Reshape((1, 2, 3))],
    ],
    ids=["upsampling", "bilinear", "nearest", "antialias", "small-epsilon", "grouped-gelu", "loop"],
)
def test_float16_computes_nearly_what_float32_does(middle: list[Any], tmp_path: Path) -> None:
    classifier = network(*middle, last=layers.Dense(3, activation="softmax"))
    images = make_probes(SHAPE)
    full = onnx.load(exported(classifier, tmp_path))
    assert any(isinstance(layer, layers.SimpleRNN) for layer in middle) == any(
        node.op_type in ("Loop", "Scan") for node in full.graph.node
    )
    half = to_float16(full)
    difference = np.abs(answers(half, images, tmp_path) - classifier.predict(images)).max()
    assert 0 < difference < 1e-2


def test_scales_of_a_resize_are_kept_to_the_last_digit(tmp_path: Path) -> None:
    classifier = network(layers.Resizing(7, 17), last=layers.Dense(3, activation="softmax"))
    graph = to_float16(onnx.load(exported(classifier, tmp_path))).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    [resize] = [node for node in graph.node if node.op_type == "Resize"]
    scales = [tensors[name] for name in resize.input[1:] if name in tensors and tensors[name].size == 4]
    assert [(value.dtype, *value[2:]) for value in scales if value.dtype.kind == "f"] in (
        [(np.float32, np.float32(7 / 10), np.float32(17 / 10))],
        [],  # it names sizes
    )


def test_nodes_that_know_no_float16_stand_between_casts() -> None:
    """Celu is float32 only in ONNX, and Range may be of integers, which stay what they are."""
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Celu", ["x"], ["y"]),
        helper.make_node("Range", ["zero", "three", "one"], ["counted"]),
        helper.make_node("Cast", ["counted"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Range", ["start", "stop", "step"], ["steps"]),
        helper.make_node("Add", ["y", "numbers"], ["z"]),
        helper.make_node("Add", ["z", "steps"], ["answers"]),
    ]
    constants = {"zero": np.int64(0), "three": np.int64(3), "one": np.int64(1)}
    constants |= {"start": np.float32(0), "stop": np.float32(0.25), "step": np.float32(0.1)}  # type: ignore[dict-item]
    graph = helper.make_graph(
        nodes,
        "between",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3])],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    half = to_float16(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    onnx.checker.check_model(half, full_check=True)
    kinds = Counter(node.op_type for node in half.graph.node)
    assert kinds == Counter({"Cast": 6, "Celu": 1, "Range": 2, "Add": 2})
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert types["three"] == TensorProto.INT64
    assert types["stop_float32"] == TensorProto.FLOAT


def test_numbers_that_float16_lacks_become_the_nearest_where_they_are_no_weights() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", name], [f"with_{name}"]) for name in ("tiny", "huge", "endless", "nothing")],
        "numbers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("with_tiny", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(np.float32([value]), name)  # type: ignore[arg-type]
            for name, value in {"tiny": -1e-12, "huge": -1e9, "endless": -np.inf, "nothing": 0.0}.items()
        ],
    )
    half = to_float16(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    found = {tensor.name: float(numpy_helper.to_array(tensor)[0]) for tensor in half.graph.initializer}
    assert found == {"tiny": -(2.0**-24), "huge": -65504.0, "endless": -np.inf, "nothing": 0.0}


@pytest.mark.parametrize(
    "last",
    [
        layers.Dense(1, activation="sigmoid"),
        layers.Dense(1),
        layers.Dense(3),
        layers.Dense(3, activation="softmax"),
    ],
    ids=["sigmoid", "logit", "logits", "softmax"],
)
def test_int8_leaves_probabilities_that_add_up_to_one(last: Any, tmp_path: Path) -> None:
    classifier = network(layers.Conv2D(8, 3, activation="relu"), last=last)
    images = make_probes(SHAPE)
    quantized = quantize_int8(exported(classifier, tmp_path), images).model
    found = answers(quantized, images, tmp_path)
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-6
    assert np.abs(found - classifier.predict(images)).max() < 0.05
    behind = quantized.graph.node[-1]
    assert behind.op_type not in ("QuantizeLinear", "DequantizeLinear")
    assert Counter(node.op_type for node in quantized.graph.node)["QuantizeLinear"] >= 3


def test_int8_does_not_touch_the_matrices_of_a_resize(tmp_path: Path) -> None:
    classifier = network(
        layers.Resizing(6, 6, antialias=True), layers.Conv2D(8, 3), last=layers.Dense(3, activation="softmax")
    )
    quantized = quantize_int8(exported(classifier, tmp_path), make_probes(SHAPE)).model
    matrices = [tensor for tensor in quantized.graph.initializer if list(tensor.dims) == [6, 10]]
    assert len(matrices) >= 1
    assert all(tensor.data_type == TensorProto.FLOAT for tensor in matrices)
