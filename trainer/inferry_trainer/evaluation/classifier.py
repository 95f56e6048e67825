"""A Keras model as it is served: uint8 pixels in, a probability for every class out.

Networks differ in what they want pixels to be and in what their last layer says; evaluation, export and
the gates do not want to know. A binary network of one output gives the probabilities of both classes, so
that they add up to 1 and the larger one is the answer: the cut lies at probability 0.5.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import ExportError
from inferry_trainer.evaluation.copying import answers_alike, copy_model
from inferry_trainer.evaluation.pictures_in import ImageSize, is_functional, take_pictures

_PREDICT_BATCH = 256
_NOISY_PICTURES = 4
# How far apart a model and its copy in float32 may lie, as a share of the answers' size: both round, float16 more.
_ROUNDING, _HALF_ROUNDING = 1e-3, 0.1
_CHUNK = 4096  # images scaled to float32 at a time: 200 MB at 64x64x3


class Pixels(Enum):
    """What a network takes its pixels to be."""

    UNIT = "0-1"
    BYTES = "0-255"  # it scales them itself, by a Rescaling layer, say
    SIGNED = "-1-1"

    @property
    def divisor(self) -> float:
        """What uint8 levels are divided by."""
        return {Pixels.UNIT: 255.0, Pixels.BYTES: 1.0, Pixels.SIGNED: 127.5}[self]

    @property
    def offset(self) -> float:
        """What is added then."""
        return -1.0 if self is Pixels.SIGNED else 0.0


class Outputs(Enum):
    """What a network's last layer says."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"


@dataclass(frozen=True, eq=False)
class Classifier:
    """A Keras model, and how pixels become its inputs and its outputs probabilities.

    Attributes:
        model: takes `(N, H, W, C)` float32, gives `(N, K)`, or `(N, 1)` where there are two classes.
        pixels: what it takes its inputs to be.
        outputs: what its outputs are.
    """

    model: Any
    pixels: Pixels
    outputs: Outputs

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        _, height, width, channels = self.model.input_shape
        return height, width, channels

    @property
    def classes(self) -> int:
        """`K`, 2 for a binary network of one output."""
        units = int(self.model.output_shape[-1])
        return max(units, 2)

    @property
    def is_binary(self) -> bool:
        """Whether the model has a single output for two classes."""
        return int(self.model.output_shape[-1]) == 1

    def scale(self, images: UInt8Array) -> Float32Array:
        """`(N, H, W, C)` uint8 to what the model takes, float32; a new array."""
        scaled = images.astype(np.float32)
        if self.pixels is not Pixels.BYTES:
            scaled /= np.float32(self.pixels.divisor)
            scaled += np.float32(self.pixels.offset)
        return scaled

    def predict(self, images: UInt8Array) -> Float32Array:
        """The model's answers, every image's, the last and smaller batch included.

        Args:
            images: `(N, H, W, C)` uint8, 0-255.

        Returns:
            `(N, K)` float32 probabilities.

        Raises:
            ExportError: TensorFlow has no way to compute the model on this processor.
        """
        try:
            parts = [
                self.model.predict(self.scale(images[start : start + _CHUNK]), batch_size=_PREDICT_BATCH, verbose=0)
                for start in range(0, len(images), _CHUNK)
            ]
        except tf.errors.UnimplementedError as error:
            raise ExportError(
                f"TensorFlow cannot compute model {self.model.name!r} on this processor: {_reason(error)}. "
                "Layers that are channels_first need oneDNN on a CPU: unset TF_ENABLE_ONEDNN_OPTS, or set it to 1"
            ) from error
        return self._probabilities(np.concatenate(parts).astype(np.float32))

    def _probabilities(self, raw: Float32Array) -> Float32Array:
        if self.is_binary:
            if self.outputs is Outputs.PROBABILITIES:
                return np.concatenate([1 - raw, raw], axis=1)
            raw = np.concatenate([np.zeros_like(raw), raw], axis=1)
        elif self.outputs is Outputs.PROBABILITIES:
            return raw
        shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
        probabilities: Float32Array = shifted / shifted.sum(axis=1, keepdims=True)
        return probabilities


def _reason(error: Exception) -> str:
    """The line of TensorFlow's message that names the operator; the others say where in Keras it was called."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if " op " in line), lines[0]).rstrip(".")


def make_classifier(
    model: Any,
    *,
    pixels: Pixels = Pixels.UNIT,
    outputs: Outputs | None = None,
    image_size: ImageSize | None = None,
) -> Classifier:
    """A classifier from a Keras model whose batch size is free and that computes in float32.

    Args:
        model: one input of pictures, one output.
        pixels: what it takes its inputs to be.
        outputs: what its outputs are; None asks the last layer's activation.
        image_size: what a model of open size is to take; None where it says itself.

    Raises:
        ExportError: not a classifier of pictures, or nothing tells what its outputs are.
    """
    model = take_pictures(model, image_size)
    _check_output(model)
    if model.input_shape[0] is not None or _computes_in_half(model):
        model = _rebuilt(model, pixels)
    return Classifier(model, pixels, outputs or outputs_of(model))


def _check_output(model: Any) -> None:
    given = model.output_shape
    if not (isinstance(given, tuple) and len(given) == 2 and given[1]):
        raise ExportError(
            f"the model {model.name!r} gives {given}; expected one output (batch, classes): end it with Flatten, or "
            "with GlobalAveragePooling2D, and a Dense layer"
        )


def outputs_of(model: Any) -> Outputs:
    """What a model's last layer says its outputs are.

    Raises:
        ExportError: it says nothing.
    """
    last = model
    while is_functional(last):
        last = last.outputs[0]._keras_history.operation if getattr(last, "outputs", None) else last.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return Outputs.PROBABILITIES
    activation = getattr(getattr(last, "activation", None), "__name__", None)
    if activation in ("softmax", "sigmoid"):
        return Outputs.PROBABILITIES
    if activation == "linear":
        return Outputs.LOGITS
    raise ExportError(
        f"the last layer of {model.name!r}, {last.name!r} ({type(last).__name__}), does not tell whether it gives "
        "probabilities or logits; say it with --outputs"
    )


def _computes_in_half(model: Any) -> bool:
    """Whether any layer computes in floating point that is not float32."""
    dtypes = {getattr(layer, "compute_dtype", None) or "" for layer in every_layer(model)}
    return any("float" in dtype and dtype != "float32" for dtype in dtypes)


def every_layer(model: Any) -> list[Any]:
    """All layers of a model, those of models within it included."""
    found = []
    for layer in model.layers:
        found.append(layer)
        if getattr(layer, "layers", None):
            found += every_layer(layer)
    return found


def _rebuilt(model: Any, pixels: Pixels) -> Any:
    """A copy, weights included, for batches of any size, in float32."""
    try:
        copy = copy_model(model, dtype="float32")
        if copy.output_shape[0] is not None:
            raise ValueError(f"its output has shape {copy.output_shape}")
        noise = _noise(model.input_shape, pixels)
        within = _HALF_ROUNDING if _computes_in_half(model) else _ROUNDING
        if not answers_alike(model, copy, noise, within=within):  # guard: copies-compared
            raise ValueError("the copy made of its layers' settings and weights answers otherwise than the model")
    except Exception as error:  # Keras raises whatever a layer that insists on its batch size leads it to
        raise ExportError(
            f"the model {model.name!r} was built for batches of {model.input_shape[0] or 'any number of'} images in "
            f"{model.compute_dtype} and cannot be rebuilt for any number in float32: {error}"
        ) from error
    return copy


def _noise(input_shape: tuple[int | None, ...], pixels: Pixels) -> Float32Array:
    """Pictures without any, in whole batches, as a model takes them."""
    sizes = [size or _NOISY_PICTURES for size in input_shape]  # only the first may be open
    levels = np.random.default_rng(0).integers(0, 256, sizes)
    return (levels / pixels.divisor + pixels.offset).astype(np.float32)
