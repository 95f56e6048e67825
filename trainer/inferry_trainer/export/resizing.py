"""Resizing as matrices: every interpolation weighs the rows of a picture, then its columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from inferry_trainer.arrays import Float32Array

# What these operations take beside images, in their order, and what leaves an axis of length 1 as it is.
_NEUTRAL = {"size": 1, "scale": 1, "translation": 0}


def resize_matrices(
    op_type: str, size: tuple[int, int], arguments: Sequence[Any], attributes: Mapping[str, Any]
) -> tuple[Float32Array, Float32Array]:
    """What one of TensorFlow's resizing operations does to rows and to columns, asked of the operation itself.

    Args:
        op_type: `ResizeArea`, `ResizeBicubic`, `ScaleAndTranslate`, or any other that resizes both axes alike.
        size: `(H, W)` of the pictures.
        arguments: what the operation takes beside them, each a pair for height and width: the size it gives, and
            perhaps scales and shifts.
        attributes: of the operation.

    Returns:
        `(H', H)` and `(W', W)` float32: a picture's column times the first is a column of the result.
    """
    pairs = [np.asarray(argument) for argument in arguments]
    operation = getattr(tf.raw_ops, op_type)
    with tf.Graph().as_default(), tf.device("/cpu:0"):
        return _weights(operation, size[0], pairs, 0, attributes), _weights(operation, size[1], pairs, 1, attributes)


def _weights(operation: Any, length: int, pairs: list[Any], axis: int, attributes: Mapping[str, Any]) -> Float32Array:
    """Resize one axis of the identity, each of whose columns is a channel; the other axis stays of length 1."""
    identity = np.eye(length, dtype=np.float32)
    images = identity[None, :, None, :] if axis == 0 else identity[None, None, :, :]
    given = {name: _alone(pair, axis, _NEUTRAL[name]) for name, pair in zip(_NEUTRAL, pairs, strict=False)}
    with tf.compat.v1.Session() as session:
        resized = session.run(operation(images=images, **given, **attributes))
    return np.ascontiguousarray(resized.reshape(-1, length).astype(np.float32))


def _alone(pair: Any, axis: int, neutral: int) -> Any:
    """A pair's value for one axis, and for the other what leaves it as it is."""
    alone = np.full_like(pair, neutral)
    alone[axis] = pair[axis]
    return alone
