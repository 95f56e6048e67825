from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import ExportError
from inferry_trainer.evaluation.evaluate import predict_probabilities
from inferry_trainer.export.convert import OPSET, export_onnx
from inferry_trainer.export.image_metadata import describe_image_input
from inferry_trainer.export.onnx_model import load_onnx_model
from inferry_trainer.models import build_mnist_cnn

layers = keras.layers


def run_onnx(path: Path, images: UInt8Array) -> Float32Array:
    return load_onnx_model(path).predict(images)


def random_images(*shape: int) -> UInt8Array:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def mnist_model() -> Any:
    keras.utils.set_random_seed(1)
    model = build_mnist_cnn((28, 28, 1), classes=10)
    model.set_weights([weight + np.float32(0.01) for weight in model.get_weights()])  # no bias is zero once trained
    return model


@pytest.fixture(scope="module")
def mnist_graph(mnist_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(mnist_model, path)
    return path


def test_the_graph_holds_nothing_but_the_network(mnist_graph: Path) -> None:
    graph = onnx.load(mnist_graph)
    expected = ["Cast", "Mul", "Reshape", "Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Reshape"]
    expected += ["MatMul", "Add", "Relu", "MatMul", "Add", "Softmax"]
    assert Counter(node.op_type for node in graph.graph.node) == Counter(expected)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", OPSET)]


def test_the_graph_takes_uint8_images_and_any_number_of_them(mnist_graph: Path) -> None:
    graph = onnx.load(mnist_graph).graph
    described = [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    ]
    assert described == [
        ("images", onnx.TensorProto.UINT8, ["N", 28, 28, 1]),
        ("probabilities", onnx.TensorProto.FLOAT, ["N", 10]),
    ]


def test_a_graph_of_grey_pictures_says_so(mnist_graph: Path) -> None:
    model = onnx.load(mnist_graph)
    assert {entry.key: entry.value for entry in model.metadata_props}["Image.BitmapPixelFormat"] == "Gray8"
    assert [value.type.denotation for value in (*model.graph.input, *model.graph.output)] == ["IMAGE", ""]


@pytest.mark.parametrize("channels", [2, 4])
def test_a_format_that_onnx_has_no_name_for_is_left_out(channels: int) -> None:
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 8, 8, channels])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "graph", [images], []))
    onnx.helper.set_model_props(model, {"author": "somebody"})
    describe_image_input(model)
    assert [entry.key for entry in model.metadata_props] == [
        "author",
        "Image.ColorSpaceGamma",
        "Image.NominalPixelRange",
    ]


def test_the_graph_answers_as_keras_does_alone_and_in_batches(mnist_model: Any, mnist_graph: Path) -> None:
    images = random_images(300, 28, 28, 1)
    together = run_onnx(mnist_graph, images)
    assert np.abs(together - predict_probabilities(mnist_model, images)).max() < 1e-6
    assert np.abs(together[:1] - run_onnx(mnist_graph, images[:1])).max() < 1e-6


def test_exporting_leaves_the_model_as_it_was_and_takes_its_present_weights(mnist_model: Any, tmp_path: Path) -> None:
    images = random_images(4, 28, 28, 1)
    model = keras.models.clone_model(mnist_model)
    before = predict_probabilities(model, images)
    export_onnx(model, tmp_path / "first.onnx")
    assert np.array_equal(before, predict_probabilities(model, images))
    model.set_weights([weight * 1.5 for weight in model.get_weights()])
    export_onnx(model, tmp_path / "second.onnx")
    assert np.abs(run_onnx(tmp_path / "first.onnx", images) - before).max() < 1e-6
    after = predict_probabilities(model, images)
    assert np.abs(run_onnx(tmp_path / "second.onnx", images) - after).max() < 1e-5
    assert np.abs(after - before).max() > 1e-3


def features(images: Any) -> Any:
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(images)
    return layers.MaxPooling2D((1, 2))(x)


def oblong(images: Any) -> Any:
    return layers.Dense(4, activation="softmax")(layers.Flatten()(features(images)))


def two_readers_of_flat_features(images: Any) -> Any:
    flat = layers.Flatten()(features(images))
    return layers.Softmax()(layers.Add()([layers.Dense(4)(flat), layers.Dense(4)(flat)]))


def without_convolution(images: Any) -> Any:
    return layers.Dense(4, activation="softmax")(layers.Flatten()(images))


def pooled_to_one_pixel(images: Any) -> Any:
    return layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(features(images)))


@pytest.mark.parametrize("network", [oblong, two_readers_of_flat_features, without_convolution, pooled_to_one_pixel])
def test_other_networks_keep_their_answers(network: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((10, 14, 3))
    model = keras.Model(inputs, network(inputs))
    export_onnx(model, tmp_path / "model.onnx")
    images = random_images(9, 10, 14, 3)
    outputs = run_onnx(tmp_path / "model.onnx", images)
    assert np.abs(outputs - predict_probabilities(model, images)).max() < 1e-6
    assert not {"Shape", "Gather", "Concat"} & {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


def test_a_layer_that_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    class Inverse(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def call(self, matrices: Any) -> Any:
            return tf.linalg.pinv(matrices)

    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Softmax()(layers.Flatten()(Inverse()(inputs))), name="odd")
    message = (
        r"'odd' cannot be converted to ONNX: TensorFlow's Svd in .* use another layer in place of 'inverse' \(Inverse\)"
    )
    with pytest.raises(ExportError, match=message):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
