"""What Keras offers for pictures becomes ONNX and computes the same: activations, layers, operations, resizing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from inferry_trainer.errors import ExportError
from inferry_trainer.evaluation.classifier import Classifier, Outputs, Pixels
from inferry_trainer.export.convert import export_classifier
from inferry_trainer.export.onnx_model import load_onnx_model
from inferry_trainer.export.resizing import resize_matrices

layers, ops = keras.layers, keras.ops
SHAPE = (8, 8, 3)
PARTS = 20  # tf2onnx's time grows with the square of a graph's nodes
Branch = Callable[[Any], Any]

ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink",
    "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh",
    "tanh_shrink",
)  # fmt: skip


def in_the_model(layer: Any) -> Branch:
    return lambda features: layer(features)


def computed(function: Branch) -> Branch:
    return lambda features: layers.Lambda(function)(features)


def attending(layer: Any) -> Branch:
    def branch(features: Any) -> Any:
        tokens = layers.Reshape((64, 8))(features)
        return layer(tokens, tokens)

    return branch


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
def compiled_inside(x: Any) -> Any:
    return x * 3


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
def compiled(x: Any) -> Any:
    return compiled_inside(tf.math.expm1(x))


@tf.custom_gradient  # type: ignore[untyped-decorator]
def with_a_gradient_of_its_own(x: Any) -> Any:
    return x * tf.sigmoid(x), lambda upstream: upstream


class Offset(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Makes one constant when it is built and another, of more than 128 numbers, when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = tf.constant(np.linspace(-1, 1, 512, dtype=np.float32).reshape(8, 8, 8))

    def call(self, x: Any) -> Any:
        return x + self.first * ops.convert_to_tensor(np.linspace(0, 2, 512, dtype=np.float32).reshape(8, 8, 8))


def branches() -> dict[str, Branch]:
    weights = tf.Variable(np.linspace(0, 1, 8, dtype=np.float32))
    mean = layers.Normalization(mean=list(range(8)), variance=[1.0 + i for i in range(8)])
    found: dict[str, Branch] = {
        f"convolution, {name}": in_the_model(layer)
        for name, layer in {
            "groups": layers.Conv2D(8, 3, groups=4),
            "groups, strides, padding": layers.Conv2D(16, 3, groups=2, strides=2, padding="same"),
            "a group a channel": layers.Conv2D(8, 3, groups=8, padding="same"),
            "groups, dilation": layers.Conv2D(8, 3, groups=2, dilation_rate=2),
            "depthwise": layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
            "depthwise, dilation": layers.DepthwiseConv2D(3, dilation_rate=2),
            "depthwise, strides and dilation": layers.DepthwiseConv2D(3, strides=2, dilation_rate=2, padding="same"),
            "separable": layers.SeparableConv2D(5, 3),
            "transposed": layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
            "transposed, grown": layers.Conv2DTranspose(5, 3, strides=2, padding="same", output_padding=1),
            "spectral norm": layers.SpectralNormalization(layers.Conv2D(4, 3)),
        }.items()
    }
    found |= {
        type(layer).__name__ + f" {number}": in_the_model(layer)
        for number, layer in enumerate(
            [
                layers.LayerNormalization(), layers.GroupNormalization(2), layers.BatchNormalization(),
                layers.RMSNormalization(), layers.UnitNormalization(), mean, layers.PReLU(),
                layers.ReLU(6.0, negative_slope=0.1, threshold=0.2), layers.MaxPooling2D(3, 2, padding="same"),
                layers.AveragePooling2D(3, 2, padding="same"), layers.AdaptiveAveragePooling2D(3),
                layers.AdaptiveMaxPooling2D(3), layers.GlobalMaxPooling2D(), layers.UpSampling2D(2),
                layers.UpSampling2D(2, interpolation="bilinear"), layers.CenterCrop(5, 5), layers.ZeroPadding2D(1),
                layers.Permute((3, 1, 2)), layers.EinsumDense("abcd,de->abce", (8, 8, 5)), Offset(),
                layers.RandomGrayscale(0.5, seed=1), layers.RandomRotation(0.2), layers.GaussianNoise(0.3),
                layers.TimeDistributed(layers.Dense(3)), layers.AutoContrast(),
            ]
        )
    }  # fmt: skip
    found |= {
        f"resizing, {interpolation}{', antialias' * antialias}": in_the_model(
            layers.Resizing(5, 13, interpolation=interpolation, antialias=antialias)
        )
        for interpolation in ("bicubic", "bilinear", "lanczos3", "lanczos5", "nearest")
        for antialias in (False, True)
    }
    found |= {
        "attention": attending(layers.MultiHeadAttention(2, 4)),
        "causal attention": attending(lambda x, y: layers.MultiHeadAttention(2, 4)(x, y, use_causal_mask=True)),
        "additive attention": attending(lambda x, y: layers.AdditiveAttention()([x, y])),
        "recurrent, gelu": lambda features: layers.LSTM(3, activation="gelu")(layers.Reshape((64, 8))(features)),
    }
    found |= {
        f"operation, {name}": computed(function)
        for name, function in {
            "variable of a closure": lambda x: x * weights,
            "compiled calls within calls": compiled,
            "gradient of its own": with_a_gradient_of_its_own,
            "log1p": lambda x: ops.log1p(ops.abs(x)),
            "logaddexp": lambda x: ops.logaddexp(x, 2 * x),
            "xlogy": lambda x: tf.math.xlogy(tf.nn.relu(x), 1 + ops.abs(x)),
            "xlog1py": lambda x: tf.math.xlog1py(tf.nn.relu(x), ops.abs(x)),
            "xdivy": lambda x: tf.math.xdivy(tf.nn.relu(x), tf.nn.relu(x)),
            "multiply_no_nan": lambda x: tf.math.multiply_no_nan(1 / tf.nn.relu(x), tf.nn.relu(x)),
            "euclidean norm": lambda x: tf.math.reduce_euclidean_norm(x, -1),
            "erfc": lambda x: tf.math.erfc(x),
            "invert": lambda x: tf.cast(tf.bitwise.invert(tf.cast(9 * x, tf.int32)), tf.float32),
            "argmax, as Keras has it": lambda x: ops.one_hot(ops.argmax(x * ops.sign(x), -1), 8),
            "sign bit": lambda x: ops.cast(ops.signbit(tf.concat([x, -0.0 * ops.abs(x)], -1)), "float32"),
            "reflected": lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
            "loop": lambda x: tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.math.expm1(y / 4)), (0, x))[1],
        }.items()
    }  # fmt: skip
    return found | {f"activation {name}": in_the_model(layers.Activation(name)) for name in ACTIVATIONS}


@pytest.mark.parametrize("part", range(PARTS))
def test_every_kind_of_layer_computes_in_the_graph_what_it_computes_in_keras(part: int, tmp_path: Path) -> None:
    keras.utils.set_random_seed(4)
    images = keras.Input(SHAPE)
    features = layers.Conv2D(8, 3, padding="same")(images)
    named = {name: layers.Flatten()(branch(features)) for name, branch in sorted(branches().items())[part::PARTS]}
    assert not [name for name, value in named.items() if None in value.shape[1:]]
    model = keras.Model(images, layers.Concatenate()(list(named.values())))
    rng = np.random.default_rng(4)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.3, variable.shape))
    classifier = Classifier(model, Pixels.SIGNED, Outputs.PROBABILITIES)
    pictures = rng.integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    export_classifier(classifier, tmp_path / "model.onnx")
    expected, found = classifier.predict(pictures), load_onnx_model(tmp_path / "model.onnx").run(pictures)
    ends = np.cumsum([value.shape[1] for value in named.values()])
    wrong = {}
    for name, one, other in zip(named, np.split(expected, ends, 1), np.split(found, ends, 1), strict=False):
        assert np.isfinite(one).all(), name
        difference = np.abs(one - other).max() / max(1, np.abs(one).max())
        if not difference < 1e-5:
            wrong[name] = difference
    assert wrong == {}


@pytest.mark.parametrize("name", ["Erfinv", "Lgamma", "RGBToHSV"])
def test_operations_without_a_way_into_onnx_are_named(name: str, tmp_path: Path) -> None:
    function = {"Erfinv": tf.math.erfinv, "Lgamma": tf.math.lgamma, "RGBToHSV": tf.image.rgb_to_hsv}[name]
    model = keras.Sequential([keras.Input(SHAPE), layers.Lambda(function, name="unusual"), layers.Flatten()])
    with pytest.raises(ExportError, match=rf"TensorFlow's {name} in .* in place of 'unusual' \(Lambda\)"):
        export_classifier(Classifier(model, Pixels.UNIT, Outputs.PROBABILITIES), tmp_path / "model.onnx")


def test_nothing_random_is_left_of_layers_that_only_training_uses(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.RandomGrayscale(0.5), layers.RandomFlip(), layers.Dropout(0.5), layers.Flatten()]
    )
    export_classifier(Classifier(model, Pixels.UNIT, Outputs.PROBABILITIES), tmp_path / "model.onnx")
    assert {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node} <= {"Cast", "Mul", "Div", "Reshape"}


@pytest.mark.parametrize(("height", "width", "size"), [(9, 7, (4, 11)), (3, 20, (8, 5)), (1, 6, (3, 1))])
@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("ResizeArea", {"align_corners": False}),
        ("ResizeArea", {"align_corners": True}),
        ("ResizeBicubic", {"half_pixel_centers": True}),
        ("ResizeBicubic", {"half_pixel_centers": False}),
        ("ScaleAndTranslate", {"kernel_type": "triangle", "antialias": True}),
        ("ScaleAndTranslate", {"kernel_type": "gaussian", "antialias": False}),
    ],
)
def test_resizing_is_one_matrix_for_rows_and_one_for_columns(
    height: int, width: int, size: tuple[int, int], op_type: str, attributes: dict[str, Any]
) -> None:
    pictures = np.random.default_rng(height).normal(size=(2, height, width, 3)).astype(np.float32)
    arguments = [np.array(size, np.int32)]
    if op_type == "ScaleAndTranslate":
        arguments += [np.array([size[0] / height, 1.25], np.float32), np.array([0.5, -0.75], np.float32)]
    named = dict(zip(("size", "scale", "translation"), arguments, strict=False))
    expected = getattr(tf.raw_ops, op_type)(images=pictures, **named, **attributes)
    rows, columns = resize_matrices(op_type, (height, width), arguments, attributes)
    found = np.einsum("ih,jw,nhwc->nijc", rows, columns, pictures)
    assert found.shape == expected.shape
    assert np.abs(found - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("kernel", "strides", "settings"),
    [
        ((3, 3), (2, 2), {"padding": "valid", "output_padding": 1}),
        ((2, 4), (3, 3), {"padding": "valid", "output_padding": 2}),
        ((2, 3), (3, 1), {"padding": "same"}),
        ((1, 2), (2, 3), {"padding": "valid"}),
    ],
)
def test_a_transposed_convolution_may_give_more_than_its_kernel_reaches(
    kernel: tuple[int, int], strides: tuple[int, int], settings: dict[str, Any], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(5)
    widened = layers.Conv2DTranspose(4, kernel, strides=strides, bias_initializer="random_normal", **settings)
    classes = layers.Dense(3, activation="softmax")
    classifier = Classifier(
        keras.Sequential([keras.Input(SHAPE), widened, layers.ReLU(), layers.Flatten(), classes]),
        Pixels.UNIT,
        Outputs.PROBABILITIES,
    )
    export_classifier(classifier, tmp_path / "model.onnx")
    images = np.random.default_rng(5).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    answers = load_onnx_model(tmp_path / "model.onnx").predict(images)
    assert np.abs(answers - classifier.predict(images)).max() < 1e-5
