"""The array type of the building blocks, and what every block asks of the arrays it is given."""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array: TypeAlias = NDArray[np.float64]


def as_float64(name: str, values: ArrayLike, *, axes: str) -> Float64Array:
    """Values as float64, with the rank that a block works on.

    Args:
        name: what the values are, for the message.
        values: anything NumPy makes an array of.
        axes: one letter an axis, such as `NHWC`; alternatives are separated by `|`.

    Returns:
        The values; the same memory where they are float64 already.

    Raises:
        ValueError: another rank, or an axis without elements.
    """
    array = np.asarray(values, dtype=np.float64)
    accepted = axes.split("|")
    if array.ndim not in {len(option) for option in accepted}:
        expected = " or ".join(f"({', '.join(option)})" for option in accepted)
        raise ValueError(f"{name}: expected an array {expected}; came one of shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one element along every axis; came shape {array.shape}")
    return array
