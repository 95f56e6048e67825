"""The reference against Keras, on networks with random weights whose answers differ from image to image.

Glorot's initial weights would not do: their probabilities hardly vary, and hide what is wrong.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.blocks import (
    FLOAT32_TOLERANCE,
    Float64Array,
    UnsupportedLayerError,
    read_keras_layers,
    reference_outputs,
    reference_probabilities,
)
from inferry_trainer.datasets.pixels import scale_pixels
from inferry_trainer.models import build_mnist_cnn

LEAST_SPREAD = 0.1  # of a class's probability over the images; less would not tell networks apart


def build_celeba_cnn() -> Any:
    """The chapter's network for CelebA: 388,673 parameters, one logit."""
    steps: list[Any] = [keras.Input((64, 64, 3))]
    for position, filters in enumerate((32, 64, 128)):
        steps += [layers.Conv2D(filters, 3, padding="same", activation="relu"), layers.MaxPooling2D(2)]
        steps += [layers.Dropout(0.5)] if position < 2 else []
    steps += [layers.Conv2D(256, 3, padding="same", activation="relu")]
    return keras.Sequential([*steps, layers.GlobalAveragePooling2D(), layers.Dense(1)])


def with_random_weights(model: Any, seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)
    for weights in model.weights:
        shape = weights.shape
        spread = 0.05 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[:-1]))  # He's, and some bias
        weights.assign(generator.normal(size=shape) * spread)
    return model


def random_images(model: Any, count: int, seed: int = 1) -> UInt8Array:
    """Noise from dark to bright, and of its own tint, so that answers vary."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (count, *model.input_shape[1:]))
    tint = generator.random((count, 1, 1, noise.shape[3]))
    return (noise * tint * np.linspace(0.1, 1, count).reshape(-1, 1, 1, 1)).astype(np.uint8)


def keras_outputs(model: Any, images: UInt8Array) -> Float64Array:
    return np.asarray(model(scale_pixels(images), training=False)).astype(np.float64)


def both_classes(logits: Float64Array) -> Float64Array:
    p = 1 / (1 + np.exp(-logits))
    return np.concatenate([1 - p, p], axis=1)


def difference(a: Float64Array, b: Float64Array) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


@pytest.fixture(scope="module")
def mnist() -> Any:
    return with_random_weights(build_mnist_cnn((28, 28, 1), classes=10))


@pytest.fixture(scope="module")
def celeba() -> Any:
    return with_random_weights(build_celeba_cnn())


def test_the_mnist_network_answers_as_in_keras(mnist: Any) -> None:
    images = random_images(mnist, 64)
    reference = reference_probabilities(read_keras_layers(mnist), images)
    assert reference.dtype == np.float64
    assert np.ptp(reference, axis=0).max() > LEAST_SPREAD
    assert difference(reference, keras_outputs(mnist, images)) < FLOAT32_TOLERANCE


def test_the_celeba_network_answers_with_both_classes(celeba: Any) -> None:
    assert celeba.count_params() == 388_673
    images = random_images(celeba, 64)
    reference = reference_probabilities(read_keras_layers(celeba), images)
    assert np.ptp(reference, axis=0).max() > LEAST_SPREAD
    assert difference(reference, both_classes(keras_outputs(celeba, images))) < FLOAT32_TOLERANCE


# Planted faults: a reference that misses one would be no opinion at all.


def test_swapped_channels_are_noticed(celeba: Any) -> None:
    images = random_images(celeba, 8)
    swapped = reference_probabilities(read_keras_layers(celeba), images[..., ::-1])
    assert difference(swapped, both_classes(keras_outputs(celeba, images))) > 10 * FLOAT32_TOLERANCE


def spoil(model: Any, layer: str, fault: Callable[[Any], Any], images: UInt8Array) -> float:
    """How far the reference lies from a network of which one layer's kernel has changed since."""
    reference = reference_probabilities(read_keras_layers(model), images)
    kernel = model.get_layer(layer).kernel
    before = kernel.numpy()
    kernel.assign(fault(before))
    try:
        return difference(reference, keras_outputs(model, images))
    finally:
        kernel.assign(before)


@pytest.mark.parametrize("layer", ["conv_1", "conv_2", "fc_1", "fc_2"])
def test_weights_that_are_off_by_a_thousandth_are_noticed(mnist: Any, layer: str) -> None:
    signs = np.random.default_rng(2).choice([-1, 1], mnist.get_layer(layer).kernel.shape)
    images = random_images(mnist, 16)
    assert spoil(mnist, layer, lambda kernel: kernel * 1.001, images) > 10 * FLOAT32_TOLERANCE
    assert spoil(mnist, layer, lambda kernel: kernel * (1 + 0.001 * signs), images) > 10 * FLOAT32_TOLERANCE


@pytest.mark.parametrize("position", range(5))
def test_a_logits_network_with_weights_off_by_a_thousandth_is_noticed(celeba: Any, position: int) -> None:
    layer = [layer.name for layer in celeba.layers if layer.weights][position]
    images = random_images(celeba, 8)
    reference = both_classes(keras_outputs(celeba, images))
    kernel = celeba.get_layer(layer).kernel
    before = kernel.numpy()
    kernel.assign(before * 1.001)
    spoiled = reference_probabilities(read_keras_layers(celeba), images)
    kernel.assign(before)
    assert difference(spoiled, reference) > 5 * FLOAT32_TOLERANCE


@pytest.mark.parametrize(
    "fault", [lambda kernel: kernel.swapaxes(0, 1), lambda kernel: kernel[::-1, ::-1]], ids=["transposed", "rotated"]
)
def test_a_turned_kernel_is_noticed(mnist: Any, fault: Callable[[Any], Any]) -> None:
    assert spoil(mnist, "conv_2", fault, random_images(mnist, 8)) > 10 * FLOAT32_TOLERANCE


# Other sequential networks.


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("size", "strides"), [(2, 2), (3, 2), (4, 3), ((3, 2), (1, 2))])
def test_every_padding_and_stride_is_that_of_keras(padding: str, size: Any, strides: Any) -> None:
    options = {"strides": strides, "padding": padding}
    model = keras.Sequential(
        [
            keras.Input((20, 23, 2)),
            layers.Conv2D(4, size, use_bias=False, **options),
            layers.ReLU(),
            layers.MaxPooling2D(2, strides=1, padding=padding),
            layers.AveragePooling2D(size, **options),
            layers.Flatten(),
            layers.Dense(3, use_bias=False),
            layers.Softmax(),
        ]
    )
    images = random_images(with_random_weights(model), 4)
    reference = reference_probabilities(read_keras_layers(model), images)
    assert difference(reference, keras_outputs(model, images)) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_batch_normalisation_answers_as_in_keras(scale: bool, center: bool) -> None:
    normalization = layers.BatchNormalization(scale=scale, center=center, epsilon=0.01)
    convolution = layers.Conv2D(6, 3, use_bias=False)
    model = keras.Sequential(
        [keras.Input((9, 9, 2)), convolution, normalization, layers.ReLU(), layers.Flatten(), layers.Dense(3)]
    )
    with_random_weights(model)
    generator = np.random.default_rng(2)
    for weights in normalization.weights:
        weights.assign(generator.uniform(0.3, 2.0, 6))  # a variance is positive
    images = random_images(model, 6)
    assert difference(reference_outputs(read_keras_layers(model), images), keras_outputs(model, images)) < 1e-4


def all_convolutional(*head: Any) -> Any:
    body = keras.Sequential([keras.Input((12, 12, 1)), layers.Conv2D(8, 3, strides=2, activation="relu")])
    steps = [body, layers.Dropout(0.2), layers.Conv2D(3, 1), layers.GlobalAveragePooling2D(), *head]
    return with_random_weights(keras.Sequential([keras.Input((12, 12, 1)), *steps]))


def test_an_answer_is_the_same_alone_and_among_others() -> None:
    model = all_convolutional()
    plain, images = read_keras_layers(model), random_images(model, 40)
    alone = np.concatenate([reference_probabilities(plain, image[np.newaxis]) for image in images])
    assert difference(alone, reference_probabilities(plain, images)) < 1e-12


def test_logits_become_probabilities() -> None:
    logits, softmaxed = all_convolutional(), all_convolutional(layers.Activation("softmax"))
    images = random_images(logits, 5)
    expected = keras_outputs(softmaxed, images)
    assert (
        difference(reference_outputs(read_keras_layers(logits), images), keras_outputs(logits, images))
        < FLOAT32_TOLERANCE
    )
    for model in (logits, softmaxed):
        assert difference(reference_probabilities(read_keras_layers(model), images), expected) < FLOAT32_TOLERANCE


def test_one_logit_and_one_probability_are_the_same_answer() -> None:
    heads: list[list[Any]] = [
        [layers.Dense(1)],
        [layers.Dense(1, activation="sigmoid")],
        [layers.Dense(1), layers.Activation("sigmoid")],
    ]
    models = [all_convolutional(*head) for head in heads]
    images = random_images(models[0], 5)
    expected = both_classes(keras_outputs(models[0], images))
    for model in models:
        assert difference(reference_probabilities(read_keras_layers(model), images), expected) < FLOAT32_TOLERANCE


# What is refused.


class Doubling(layers.Layer):  # type: ignore[misc]  # Keras is untyped
    def call(self, inputs: Any) -> Any:
        return 2 * inputs


class Dense(layers.Dense):  # type: ignore[misc]
    """Somebody's own, under Keras' name."""


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Doubling(name="twice"), r"'twice' \(Doubling\): expected one of Keras' Conv2D"),
        (Dense(2, name="mine"), r"'mine' \(Dense\): expected one of Keras'"),
        (layers.BatchNormalization(axis=1, name="rows"), r"'rows' \(BatchNormalization\): expected axis=-1; came 1"),
        (layers.LayerNormalization(name="norm"), r"'norm' \(LayerNormalization\): expected one of Keras'"),
        (layers.Conv2D(2, 3, dilation_rate=2, name="wide"), r"'wide' \(Conv2D\): expected dilation_rate=\(1, 1\)"),
        (layers.Conv2D(2, 3, groups=2, name="split"), "expected groups=1; came 2"),
        (layers.Dense(2, activation="gelu", name="fc"), "expected an activation of linear, relu, .*; came 'gelu'"),
        (layers.ReLU(max_value=6, name="six"), "expected max_value=None; came 6"),
        (layers.GlobalAveragePooling2D(keepdims=True), "expected keepdims=False; came True"),
    ],
)
def test_a_layer_without_a_reference_is_named(layer: Any, message: str) -> None:
    model = keras.Sequential([keras.Input((8, 8, 2)), layer])
    with pytest.raises(UnsupportedLayerError, match=message) as caught:
        read_keras_layers(model)
    assert (caught.value.layer, caught.value.kind) == (layer.name, type(layer).__name__)


def test_a_network_with_branches_is_refused() -> None:
    inputs = keras.Input((8, 8, 2))
    model = keras.Model(inputs, layers.Add()([inputs, inputs]), name="residual")
    with pytest.raises(UnsupportedLayerError, match=r"'residual' \(Functional\): expected a keras.Sequential model"):
        read_keras_layers(model)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"expected 2 floating-point weights, .*; came \[\]"):
        read_keras_layers(keras.Sequential([layers.Dense(2)]))


def test_images_of_another_shape_are_refused_by_the_layer_they_do_not_fit(mnist: Any) -> None:
    with pytest.raises(ValueError, match=r"layer 'conv_1', given .*: images: expected 1 channels, .*; came 3"):
        reference_probabilities(read_keras_layers(mnist), np.zeros((1, 28, 28, 3), np.uint8))
    with pytest.raises(ValueError, match="layer 'fc_1', given"):
        reference_probabilities(read_keras_layers(mnist), np.zeros((1, 32, 32, 1), np.uint8))


@pytest.mark.parametrize("images", [np.zeros((1, 28, 28, 1)), np.zeros((28, 28, 1), np.uint8)])
def test_what_are_no_uint8_images_is_refused(mnist: Any, images: Any) -> None:
    with pytest.raises(ValueError, match=r"images: expected \(N, H, W, C\) uint8; came"):
        reference_probabilities(read_keras_layers(mnist), images)


def test_several_labels_at_once_are_no_distribution() -> None:
    model = all_convolutional(layers.Dense(3, activation="sigmoid"))
    with pytest.raises(ValueError, match="expected probabilities whose sum is 1 an image"):
        reference_probabilities(read_keras_layers(model), random_images(model, 2))
