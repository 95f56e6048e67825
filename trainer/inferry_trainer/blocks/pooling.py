"""Pooling: each neighbourhood becomes its largest or its mean value.

Max pooling makes a network insensitive to small changes of its input: two images that differ in
places can give the same result. Where neighbourhoods neither overlap nor leave gaps (stride equal
to size, the default) a side shrinks by that factor; rows and columns that no longer fill a
neighbourhood are dropped.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from inferry_trainer.blocks.checks import Float64Array, as_float64
from inferry_trainer.blocks.padding import check_windows


def max_pool(images: ArrayLike, size: tuple[int, int], *, strides: tuple[int, int] | None = None) -> Float64Array:
    """The largest value of each neighbourhood.

    Args:
        images: `(H, W)`, or `(N, H, W, C)`, each image and channel on its own.
        size: of a neighbourhood: rows, columns.
        strides: from one to the next; `size` where not given.

    Returns:
        `(H', W')` or `(N, H', W', C)` float64.

    Raises:
        ValueError: another rank, a number below 1, or a neighbourhood larger than the image.
    """
    return np.asarray(_neighbourhoods(images, size, strides or size).max(axis=(-2, -1)))


def mean_pool(images: ArrayLike, size: tuple[int, int], *, strides: tuple[int, int] | None = None) -> Float64Array:
    """The mean of each neighbourhood; arguments, result and errors as for `max_pool`."""
    return np.asarray(_neighbourhoods(images, size, strides or size).mean(axis=(-2, -1)))


def global_mean_pool(images: ArrayLike) -> Float64Array:
    """The mean of each feature map: pooling whose one neighbourhood is the whole image.

    Args:
        images: `(N, H, W, C)`.

    Returns:
        `(N, C)` float64.
    """
    return np.asarray(as_float64("images", images, axes="NHWC").mean(axis=(1, 2)))


def _neighbourhoods(images: ArrayLike, size: tuple[int, int], strides: tuple[int, int]) -> Float64Array:
    """A view with two more axes at the end: the rows and columns of each neighbourhood."""
    x = as_float64("images", images, axes="HW|NHWC")
    first = 0 if x.ndim == 2 else 1
    check_windows(x.shape[first : first + 2], size, strides)
    windows = sliding_window_view(x, size, axis=(first, first + 1))
    steps = (slice(None, None, strides[0]), slice(None, None, strides[1]))
    return windows[steps if x.ndim == 2 else (slice(None), *steps)]
