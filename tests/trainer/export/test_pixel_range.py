"""What a model takes its pixels to be is seen from its first layers, and contradictions are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from inferry_trainer.errors import ConfigError
from inferry_trainer.evaluation.classifier import Pixels
from inferry_trainer.export.pixel_range import decide_pixels

layers, ops = keras.layers, keras.ops


def network(*first: Any) -> Any:
    return keras.Sequential(
        [keras.Input((16, 16, 3)), *first, layers.Conv2D(2, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )


def normalization(mean: float, deviation: float) -> Any:
    return layers.Normalization(mean=[mean] * 3, variance=[deviation**2] * 3)


def functional(scale: Callable[[Any], Any]) -> Any:
    images = keras.Input((16, 16, 3))
    features = layers.Conv2D(2, 3)(scale(images))
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(features)))


def with_statistics(mean: float, deviation: float) -> Any:
    layer = layers.BatchNormalization()
    model = network(layer)
    layer.set_weights([np.ones(3), np.zeros(3), np.full(3, mean), np.full(3, deviation**2)])
    return model


class Scale(layers.Layer):  # type: ignore[misc,name-defined]
    """Somebody's own."""

    def call(self, images: Any) -> Any:
        return images / 127.5 - 1


SCALES_BY_ITSELF = {
    "to one": lambda: network(layers.Rescaling(1 / 255)),
    "to both signs": lambda: network(layers.Rescaling(1 / 127.5, offset=-1)),
    "behind other layers": lambda: network(layers.RandomFlip(), layers.ZeroPadding2D(1), layers.Rescaling(1 / 255)),
    "in two steps": lambda: network(layers.Rescaling(1 / 255), normalization(0.45, 0.22)),
    "by the data's statistics": lambda: network(normalization(120, 60)),
    "by trained statistics": lambda: with_statistics(120, 60),
    "by operations": lambda: functional(lambda images: (images - 127.5) / 127.5),
    "by a layer of its own": lambda: functional(Scale()),
    "in a model within it": lambda: keras.Sequential([keras.Input((16, 16, 3)), network(layers.Rescaling(1 / 255))]),
    "an application": lambda: keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=2),
}
SAYS_NOTHING = {
    "plain": lambda: network(),
    "from one to both signs": lambda: network(layers.Rescaling(2.0, offset=-1)),
    "statistics of scaled pixels": lambda: network(normalization(0.45, 0.22)),
    "fresh statistics": lambda: network(layers.BatchNormalization()),
    "means taken off": lambda: network(layers.Rescaling(1.0, offset=-120)),
    "cut": lambda: functional(lambda images: ops.clip(images, 0, 1)),
    "squashed": lambda: functional(lambda images: ops.sigmoid(images)),
    "normalised by picture": lambda: network(layers.LayerNormalization()),
}


@pytest.mark.parametrize("name", SCALES_BY_ITSELF)
def test_a_model_that_scales_by_itself_gets_pixels_as_they_are(name: str, tmp_path: Path) -> None:
    SCALES_BY_ITSELF[name]().save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Scale": Scale}, compile=False)
    pixels, why = decide_pixels(model, None)
    assert pixels is Pixels.BYTES
    assert "0 to 255 span" in why
    assert decide_pixels(model, Pixels.BYTES)[0] is Pixels.BYTES
    for contradiction in (Pixels.UNIT, Pixels.SIGNED):
        with pytest.raises(ConfigError, match=r"would scale pixels twice: .* --pixels 0-255"):
            decide_pixels(model, contradiction)


@pytest.mark.parametrize("name", SAYS_NOTHING)
def test_a_model_that_does_not_tell_gets_what_the_user_says(name: str) -> None:
    model = SAYS_NOTHING[name]()
    assert decide_pixels(model, None)[0] is Pixels.UNIT
    for given in Pixels:
        assert decide_pixels(model, given)[0] is given


def test_a_model_of_bytes_takes_bytes() -> None:
    images = keras.Input((16, 16, 3), dtype="uint8")
    model = keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Rescaling(1 / 255)(images))))
    assert decide_pixels(model, None) == (Pixels.BYTES, "the model's input is uint8; --pixels 0-255 would say the same")
    with pytest.raises(ConfigError, match="the model's input is uint8"):
        decide_pixels(model, Pixels.UNIT)
