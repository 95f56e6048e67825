"""Networks of keras.applications, and a small vision transformer, as if they had been trained."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from inferry_trainer.evaluation.classifier import Pixels
from inferry_trainer.export.candidate import make_probes

CLASSES = 4
# The smallest side that each takes with its own last layers, and what it takes pixels to be.
APPLICATIONS: dict[str, tuple[int, Pixels]] = {
    "MobileNetV2": (32, Pixels.SIGNED),
    "MobileNetV3Small": (32, Pixels.BYTES),
    "MobileNetV3Large": (32, Pixels.BYTES),
    "EfficientNetB0": (32, Pixels.BYTES),
    "EfficientNetV2B0": (32, Pixels.BYTES),
    "ResNet50": (32, Pixels.UNIT),
    "DenseNet121": (32, Pixels.UNIT),
    "NASNetMobile": (32, Pixels.SIGNED),
    "Xception": (71, Pixels.SIGNED),
    "InceptionV3": (75, Pixels.SIGNED),
    "VGG16": (32, Pixels.UNIT),
    "ConvNeXtTiny": (32, Pixels.BYTES),
}


def build_application(name: str) -> tuple[Any, Pixels]:
    """A network of keras.applications for pictures of its smallest size, its weights perturbed."""
    side, pixels = APPLICATIONS[name]
    build: Callable[..., Any] = getattr(keras.applications, name)
    keras.utils.set_random_seed(7)
    model = build(input_shape=(side, side, 3), weights=None, classes=CLASSES)
    return make_lively(model, pixels), pixels


@keras.saving.register_keras_serializable(package="testkit")
class Positions(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Adds a learned vector to each patch."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.vectors = self.add_weight(shape=shape[1:], initializer="random_normal", name="vectors")

    def call(self, patches: Any) -> Any:
        return patches + self.vectors


def build_vision_transformer() -> tuple[Any, Pixels]:
    """Patches, learned positions, two blocks of attention and GELU; it normalises its own pixels."""
    layers = keras.layers
    keras.utils.set_random_seed(7)
    images = keras.Input((32, 32, 3))
    x = layers.Normalization(mean=[110.0, 120.0, 130.0], variance=[60.0**2] * 3)(images)
    x = layers.Reshape((16, 64))(layers.Conv2D(64, 8, strides=8)(x))
    x = Positions()(x)
    for _ in range(2):
        normal = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 16, dropout=0.1)(normal, normal)])
        y = layers.Dense(128, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(x))
        x = layers.Add()([x, layers.Dense(64)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
    model = keras.Model(images, layers.Dense(CLASSES, activation="softmax")(x), name="vit")
    return make_lively(model, Pixels.BYTES), Pixels.BYTES


def make_lively(model: Any, pixels: Pixels) -> Any:
    """Perturb a fresh network so that every layer matters and answers depend on the picture.

    Normalisations get scales and shifts of their own and the statistics of pictures; the last layer gives
    each class its turn.
    """
    rng = np.random.default_rng(7)
    normalised = any("Normalization" in type(layer).__name__ for layer in model._flatten_layers())
    for variable in model.trainable_variables:
        if len(variable.shape) > 1 and not normalised:
            variable.assign(variable * 2**0.5)  # else every ReLU halves what is left of the picture
        if len(variable.shape) == 1:
            spread = 0.2 if variable.name.endswith("gamma") else 0.05
            centre = 1.0 if variable.name.endswith("gamma") else 0.0
            variable.assign(rng.normal(centre, spread, variable.shape))
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    probes = make_probes(model.input_shape[1:]).astype(np.float32) / pixels.divisor + pixels.offset
    model(probes, training=True)
    _spread_answers(model, probes)
    return model


def _spread_answers(model: Any, probes: Any) -> None:
    """Scale and shift the last layer's logits to a mean of 0 and a deviation of 2, each class over the probes."""
    last = next(layer for layer in reversed(model.layers) if layer.get_weights())
    kernel, bias = last.get_weights()
    activation, last.activation = last.activation, keras.activations.linear
    logits = np.asarray(model(probes, training=False)).reshape(len(probes), -1)
    last.activation = activation
    scale = 2 / logits.std(axis=0)
    last.set_weights([kernel * scale, (bias - logits.mean(axis=0)) * scale])
