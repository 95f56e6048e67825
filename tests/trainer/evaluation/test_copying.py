"""A copy of a Keras model, for batches of any size or in another precision, computes what the model does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from inferry_trainer.errors import ExportError
from inferry_trainer.evaluation.classifier import Outputs, Pixels, make_classifier
from inferry_trainer.evaluation.copying import copy_model
from inferry_trainer.export.convert import export_classifier
from inferry_trainer.export.onnx_model import load_onnx_model
from inferry_trainer.gates.float64 import float64_probabilities

layers = keras.layers
BATCH = 5
PICTURES = np.random.default_rng(1).integers(0, 256, (BATCH, 9, 8, 3), dtype=np.uint8)


def adapted(**settings: Any) -> Any:
    normalization = layers.Normalization(**settings)
    normalization.adapt(PICTURES.astype(np.float32))
    return normalization


@keras.saving.register_keras_serializable(package="test_copying")
class Block(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer made of layers, with statistics of its own."""

    def __init__(self, filters: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.filters = filters
        self.convolution = layers.Conv2D(filters, 3, padding="same")
        self.normalization = layers.BatchNormalization()

    def build(self, shape: Any) -> None:
        self.convolution.build(shape)
        self.normalization.build((*shape[:-1], self.filters))

    def call(self, images: Any, training: bool = False) -> Any:
        return keras.ops.relu(self.normalization(self.convolution(images), training=training))

    def get_config(self) -> Any:
        return super().get_config() | {"filters": self.filters}


@keras.saving.register_keras_serializable(package="test_copying")
class OfItsOwn(keras.Model):  # type: ignore[misc]
    """A model whose `call` is written by hand."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.normalization, self.block, self.pool = adapted(), Block(4), layers.GlobalAveragePooling2D()
        self.last = layers.Dense(3, activation="softmax")

    def call(self, images: Any, training: bool = False) -> Any:
        return self.last(self.pool(self.block(self.normalization(images), training=training)))


def normalized(images: Any) -> Any:
    return layers.Conv2D(4, 3, activation="gelu")(adapted()(images) + 0.5)


def normalized_inside(images: Any) -> Any:
    inner = keras.Sequential([keras.Input(images.shape[1:]), adapted(axis=(1, 2, 3)), layers.Conv2D(4, 3)])
    return layers.Activation("relu")(inner(images))


def operations(images: Any) -> Any:
    scaled = images / 255.0 - 0.5
    doubled = keras.ops.concatenate([scaled, keras.ops.sin(scaled)], axis=-1)
    return keras.ops.where(doubled > 0, doubled, keras.ops.cast(doubled, "float32") * 0.1)


def attention(images: Any) -> Any:
    patches = layers.Reshape((9, 24))(images / 255.0)
    return layers.LayerNormalization()(patches + layers.MultiHeadAttention(2, 4)(patches, patches))


def shared(images: Any) -> Any:
    convolution, normalization = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    once = normalization(convolution(images / 255.0))
    return layers.Add()([once, normalization(convolution(once))])


def grouped(images: Any) -> Any:
    augmented = layers.RandomContrast(0.1)(layers.RandomFlip()(layers.Resizing(8, 8)(images)))
    return layers.GroupNormalization(2)(layers.Conv2D(6, 3, groups=3)(layers.Rescaling(1 / 255)(augmented)))


def in_half(images: Any) -> Any:
    return layers.Conv2D(4, 3, activation="relu", dtype="mixed_float16")(adapted()(images)) * 0.5


def blocks(images: Any) -> Any:
    return Block(4)(Block(5)(images / 255.0))


BODIES = (normalized, normalized_inside, operations, attention, shared, grouped, in_half, blocks)


def network(body: Callable[[Any], Any], batch_size: int | None) -> Any:
    """A network whose every weight and statistic matters."""
    images = keras.Input((9, 8, 3), batch_size=batch_size)
    classes = layers.Dense(3, activation="softmax", dtype="float32")(layers.Flatten()(body(images)))
    return lively(keras.Model(images, classes))


def lively(model: Any) -> Any:
    rng = np.random.default_rng(2)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.1, variable.shape))
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    return model


def answers(model: Any) -> Any:
    return np.asarray(model(PICTURES.astype(np.float32), training=False))


@pytest.mark.parametrize("batch_size", [None, BATCH])
@pytest.mark.parametrize("body", BODIES)
def test_a_copy_computes_what_the_model_does(
    body: Callable[[Any], Any], batch_size: int | None, tmp_path: Path
) -> None:
    model = network(body, batch_size)
    model.save(tmp_path / "mine.keras")
    expected = answers(keras.saving.load_model(tmp_path / "mine.keras"))
    assert np.ptp(expected, axis=0).max() > 0.01  # pictures are told apart
    classifier = make_classifier(keras.saving.load_model(tmp_path / "mine.keras"), pixels=Pixels.BYTES)
    rounding = 2e-3 if body is in_half else 1e-5
    assert np.abs(classifier.predict(PICTURES) - expected).max() < rounding  # for any number of pictures
    assert np.abs(float64_probabilities(classifier, PICTURES) - classifier.predict(PICTURES)).max() < 1e-5
    if batch_size is None:
        export_classifier(classifier, tmp_path / "mine.onnx")
        assert np.abs(load_onnx_model(tmp_path / "mine.onnx").predict(PICTURES) - expected).max() < rounding


def test_a_model_of_its_own_is_copied_from_its_file(tmp_path: Path) -> None:
    model = OfItsOwn()
    model(PICTURES.astype(np.float32))
    lively(model).save(tmp_path / "mine.keras")
    loaded = keras.saving.load_model(tmp_path / "mine.keras")
    classifier = make_classifier(loaded, pixels=Pixels.BYTES, outputs=Outputs.PROBABILITIES)
    assert np.abs(classifier.predict(PICTURES) - answers(model)).max() < 1e-6
    assert np.abs(float64_probabilities(classifier, PICTURES) - answers(model)).max() < 1e-5


def test_layers_of_somebodys_own_compute_in_float64_within() -> None:
    copy = copy_model(network(blocks, None), dtype="float64")
    assert {layer.compute_dtype for layer in copy._flatten_layers()} == {"float64"}
    assert keras.config.floatx() == keras.config.dtype_policy().name == "float32"


@keras.saving.register_keras_serializable(package="test_copying")
class Forgetful(keras.layers.Layer):  # type: ignore[misc]
    """Does not say in its settings what it was told."""

    def __init__(self, power: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.power = power

    def call(self, images: Any) -> Any:
        return images**self.power

    def get_config(self) -> Any:
        return super().get_config()


def test_a_copy_that_answers_otherwise_is_refused() -> None:
    with pytest.raises(ExportError, match=r"cannot be rebuilt for any number in float32: .* answers otherwise"):
        make_classifier(network(lambda images: Forgetful(3.0)(images), BATCH))
