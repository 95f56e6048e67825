"""The truth that rounding is measured by: the same Keras model, evaluated in float64.

The copy is Keras' own, layer by layer, with the same weights: no converter and no ONNX had a hand in it, so a graph
that was converted wrongly is as far from it as it is from Keras. What is left between the copy and the model
is what float32 rounds, on this processor, with this library's kernels.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.blocks.activations import sigmoid, softmax
from inferry_trainer.blocks.checks import Float64Array
from inferry_trainer.evaluation.classifier import Classifier, Outputs, Pixels

_CHUNK = 16  # images at once: float64 takes twice the memory


class NoTruthError(Exception):
    """A model that cannot be evaluated in float64; says why, in one line."""


def float64_probabilities(classifier: Classifier, images: UInt8Array) -> Float64Array:
    """What a classifier's model answers where nothing is rounded to float32.

    Args:
        classifier: from `make_classifier`.
        images: `(N, H, W, C)` uint8, `N` at least 1.

    Returns:
        `(N, K)` float64 probabilities.

    Raises:
        NoTruthError: a layer that cannot be copied, or that computes in float32 only.
    """
    try:
        model = _copy_in_float64(classifier.model)
        chunks = (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
        raw = np.concatenate([_answer(model, _scale(classifier, chunk)) for chunk in chunks])
    except Exception as error:  # Keras and TensorFlow raise whatever a layer without float64 leads them to
        raise NoTruthError(f"it has no float64 evaluation: {type(error).__name__}: {_last_line(error)}") from error
    if raw.dtype != np.float64 or not np.isfinite(raw).all():
        raise NoTruthError(f"its copy in float64 answers in {raw.dtype}, or not with finite numbers")
    return _probabilities(classifier, raw)


def _copy_in_float64(model: Any) -> Any:
    def clone(layer: Any) -> Any:
        return layer.__class__.from_config(_in_float64(layer.get_config()))

    images = keras.Input(model.input_shape[1:], dtype="float64")
    copy = keras.models.clone_model(model, input_tensors=images, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers():  # what a layer derives from its weights, `Normalization` say, it derives anew
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return copy


def _in_float64(value: Any) -> Any:
    """A layer's settings with every floating dtype in them exchanged, those of layers within layers included."""
    if isinstance(value, Mapping):
        return {key: "float64" if _is_floating(key, each) else _in_float64(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_in_float64(each) for each in value)
    return value


def _is_floating(key: str, value: Any) -> bool:
    if key != "dtype":
        return False
    return isinstance(value, Mapping) or "float" in str(value)  # a policy, or a dtype's name


def _scale(classifier: Classifier, images: UInt8Array) -> Float64Array:
    scaled = images.astype(np.float64)
    if classifier.pixels is not Pixels.BYTES:
        scaled = scaled / classifier.pixels.divisor + classifier.pixels.offset
    return scaled.reshape(len(images), *classifier.model.input_shape[1:])


def _answer(model: Any, pixels: Float64Array) -> Any:
    # `predict` would round its inputs to float32
    return keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(pixels, dtype="float64"), training=False))


def _probabilities(classifier: Classifier, raw: Float64Array) -> Float64Array:
    if classifier.is_binary:
        if classifier.outputs is Outputs.PROBABILITIES:
            return np.concatenate([1 - raw, raw], axis=1)
        return np.concatenate([sigmoid(-raw), sigmoid(raw)], axis=1)
    return raw if classifier.outputs is Outputs.PROBABILITIES else softmax(raw)


def _last_line(error: Exception) -> str:
    """Keras puts the cause last."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"])[-1][:200]
