"""Activation functions: what a layer does to its net input, and how logits become probabilities.

Each is written so that no exponential overflows, whatever the logit. The logarithms of sigmoid and
softmax stand beside them, because a loss needs them exactly where the probability itself has
already been rounded to 0 or 1.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from inferry_trainer.blocks.checks import Float64Array


def linear(z: ArrayLike) -> Float64Array:
    """The net input as it is; any shape."""
    return np.asarray(z, dtype=np.float64)


def relu(z: ArrayLike) -> Float64Array:
    """max(0, z), element by element; any shape."""
    return np.asarray(np.maximum(linear(z), 0.0))


def sigmoid(z: ArrayLike) -> Float64Array:
    """1 / (1 + exp(-z)), element by element: the probability of the second of two classes. Any shape."""
    return np.asarray(np.exp(log_sigmoid(z)))


def log_sigmoid(z: ArrayLike) -> Float64Array:
    """The logarithm of `sigmoid`; finite for every finite z."""
    return np.asarray(-np.logaddexp(0.0, -linear(z)))


def softmax(z: ArrayLike) -> Float64Array:
    """exp(z) over its sum along the last axis, the classes.

    Args:
        z: `(..., K)` logits.

    Returns:
        `(..., K)` float64 in [0, 1]; each row's sum is 1.
    """
    return np.asarray(np.exp(log_softmax(z)))


def log_softmax(z: ArrayLike) -> Float64Array:
    """The logarithm of `softmax`; finite for every finite z."""
    logits = linear(z)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


ACTIVATIONS: Mapping[str, Callable[[ArrayLike], Float64Array]] = {
    "linear": linear,
    "relu": relu,
    "sigmoid": sigmoid,
    "softmax": softmax,
}
