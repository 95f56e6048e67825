"""Copies of Keras models that compute the same in another precision, for batches of any size."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from inferry_trainer.arrays import Float32Array

# How a layer says in its settings what it computes in; those of quantized layers say more, and are left as they are.
_POLICIES = ("DTypePolicy", "FloatDTypePolicy", "DTypePolicyMap")
LayerFactory = Callable[[Any], Any]


def copy_model(model: Any, *, dtype: str, exchange: LayerFactory = lambda _: None) -> Any:
    """A model of the same layers and weights that takes batches of any size and computes in `dtype`.

    Args:
        model: Sequential or Functional, of one input; models within it may be classes of their own.
        dtype: float32 or float64, of everything that computes in floating point.
        exchange: may give another layer for a layer, without weights; None leaves it.

    Raises:
        Exception: whatever Keras, or a layer of somebody's own, makes of settings that cannot be copied.
    """

    def clone(layer: Any) -> Any:
        return exchange(layer) or _again(layer, dtype)

    with computing_in(dtype):
        images = keras.Input(model.input_shape[1:], dtype=dtype)
        copy = keras.models.clone_model(model, input_tensors=images, clone_function=clone, recursive=True)
        copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers():
        if hasattr(layer, "finalize_state"):  # `Normalization` computes with what it derived from its first weights
            layer.finalize_state()  # guard: copies-derived-state
    return copy


def answers_alike(model: Any, copy: Any, pixels: Float32Array, *, within: float) -> bool:
    """Whether a copy's answers lie near the model's.

    Args:
        model: the original; may insist on its batch size.
        copy: of it.
        pixels: `(N, ...)` float32, what the model takes.
        within: accepted, as a share of the answers' size: the root of the sum of squares of both.
    """
    expected, found = (
        np.asarray(each(keras.ops.convert_to_tensor(pixels), training=False), np.float64) for each in (model, copy)
    )
    if expected.shape != found.shape or not np.isfinite(found).all():
        return False
    return bool(np.linalg.norm(found - expected) <= within * np.linalg.norm(expected))


@contextlib.contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Let layers that are made meanwhile compute in `dtype` where they are not told otherwise."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_floatx(floatx)


def _again(layer: Any, dtype: str) -> Any:
    """The same layer from its settings, without weights."""
    return layer.__class__.from_config(_in_dtype(layer.get_config(), dtype))


def _in_dtype(value: Any, dtype: str) -> Any:
    """A layer's settings with every floating dtype in them exchanged, those of layers within layers included.

    An operation, as `x / 255` makes one, has no such setting, and takes none.
    """
    if isinstance(value, Mapping):
        return {key: dtype if _is_floating(key, each) else _in_dtype(each, dtype) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_in_dtype(each, dtype) for each in value)
    return value


def _is_floating(key: str, value: Any) -> bool:
    if key != "dtype":
        return False
    if isinstance(value, Mapping):
        return value.get("class_name") in _POLICIES
    return "float" in str(value)
