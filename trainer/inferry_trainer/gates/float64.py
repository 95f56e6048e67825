"""The truth that rounding is measured by: the same Keras model, evaluated in float64.

The copy is Keras' own, layer by layer, with the same weights: no converter and no ONNX had a hand in it, so a graph
that was converted wrongly is as far from it as it is from Keras. What is left between the copy and the model
is what float32 rounds, on this processor, with this library's kernels.
"""

import re
from typing import Any

import keras
import numpy as np

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.blocks.activations import sigmoid, softmax
from inferry_trainer.blocks.checks import Float64Array
from inferry_trainer.evaluation.classifier import Classifier, Outputs, Pixels
from inferry_trainer.evaluation.copying import computing_in, copy_model

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
        model = copy_model(classifier.model, dtype="float64")
        chunks = (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
        with computing_in("float64"):
            raw = np.concatenate([_answer(model, _scale(classifier, chunk)) for chunk in chunks])
    except Exception as error:  # Keras and TensorFlow raise whatever a layer without float64 leads them to
        raise NoTruthError(f"it has no float64 evaluation: {type(error).__name__}: {_cause(error)}") from error
    if raw.dtype != np.float64 or not np.isfinite(raw).all():
        raise NoTruthError(f"its copy in float64 answers in {raw.dtype}, or not with finite numbers")
    return _probabilities(classifier, raw)


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


def _cause(error: Exception) -> str:
    """The cause in a message of Keras: its last line, in bold, before the list of the layer's arguments."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1][:200]
