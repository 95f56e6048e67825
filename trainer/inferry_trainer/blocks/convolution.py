"""Convolution of one signal, of one image, and of images with several channels.

Convolution rotates the filter before it slides it along:

    y[i] = sum over k of x[i - k] w[k]

Deep learning libraries leave the rotation out and call the result convolution all the same; its
proper name is cross-correlation. A trained Keras filter therefore has to be rotated once more
before these functions compute what Keras does: see `layers.py`.

All three functions read alike: pad, look at every window, keep those that the strides step on,
multiply by the rotated filter and add.
"""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from inferry_trainer.blocks.checks import Float64Array, as_float64
from inferry_trainer.blocks.padding import Padding, PaddingMode, check_windows, padding_widths

Padding2D = PaddingMode | int | tuple[int, int]


def convolve1d(signal: ArrayLike, kernel: ArrayLike, *, padding: Padding = 0, stride: int = 1) -> Float64Array:
    """The convolution of a signal with a filter; `numpy.convolve` where the stride is 1.

    Args:
        signal: `(n,)`.
        kernel: `(m,)`.
        padding: `full`, `same`, `valid`, or p zeros on each side.
        stride: the filter's step.

    Returns:
        `(floor((n + 2p - m) / s) + 1,)` float64.

    Raises:
        ValueError: another rank, a stride below 1, or a filter longer than the padded signal.
    """
    x = as_float64("signal", signal, axes="n")
    w = as_float64("kernel", kernel, axes="m")
    padded = np.pad(x, padding_widths(padding, w.size))
    check_windows(padded.shape, w.shape, (stride,))
    windows = sliding_window_view(padded, w.size)[::stride]
    return np.asarray(windows @ w[::-1])


def convolve2d(
    image: ArrayLike, kernel: ArrayLike, *, padding: Padding2D = 0, strides: tuple[int, int] = (1, 1)
) -> Float64Array:
    """The convolution of an image with a filter; `scipy.signal.convolve2d` where the strides are 1.

    Args:
        image: `(H, W)`.
        kernel: `(m1, m2)`.
        padding: `full`, `same`, `valid`, or p zeros on each side; a pair has p for rows and for columns.
        strides: the filter's step down and to the right.

    Returns:
        float64, each axis as long as `output_size` says.

    Raises:
        ValueError: another rank, a stride below 1, or a filter larger than the padded image.
    """
    x = as_float64("image", image, axes="HW")
    w = as_float64("kernel", kernel, axes="mm")
    padded = np.pad(x, _widths(padding, w.shape))
    check_windows(padded.shape, w.shape, strides)
    windows = sliding_window_view(padded, w.shape)[:: strides[0], :: strides[1]]
    return np.asarray(np.einsum("hwij,ij->hw", windows, w[::-1, ::-1]))


def convolve_channels(
    images: ArrayLike,
    kernels: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    padding: Padding2D = 0,
    strides: tuple[int, int] = (1, 1),
    activation: Callable[[Float64Array], Float64Array] | None = None,
) -> Float64Array:
    """A convolutional layer: A = phi(Z), and Z the sum over input channels of 2-D convolutions, plus bias.

    Args:
        images: `(N, H, W, C)`.
        kernels: `(m1, m2, C, F)`, one filter a pair of input channel and feature map.
        bias: `(F,)`, one number a feature map.
        padding: as for `convolve2d`.
        strides: as for `convolve2d`.
        activation: phi; without one the result is Z.

    Returns:
        `(N, H', W', F)` float64.

    Raises:
        ValueError: as for `convolve2d`, or channels or feature maps that do not match.
    """
    x = as_float64("images", images, axes="NHWC")
    w = as_float64("kernels", kernels, axes="mmCF")
    m1, m2, channels, features = w.shape
    if x.shape[3] != channels:
        raise ValueError(f"images: expected {channels} channels, as many as the kernels have; came {x.shape[3]}")
    padded = np.pad(x, ((0, 0), *_widths(padding, (m1, m2)), (0, 0)))
    check_windows(padded.shape[1:3], (m1, m2), strides)
    windows = sliding_window_view(padded, (m1, m2), axis=(1, 2))[:, :: strides[0], :: strides[1]]
    # (N, H', W', C, m1, m2) with (m1, m2, C, F): what `einsum("nhwcij,ijcf->nhwf")` says, as one matrix product.
    z = np.tensordot(windows, w[::-1, ::-1], axes=((3, 4, 5), (2, 0, 1)))
    if bias is not None:
        z += _checked_bias(bias, features)
    return z if activation is None else activation(z)


def _checked_bias(bias: ArrayLike, features: int) -> Float64Array:
    b = as_float64("bias", bias, axes="F")
    if b.size != features:
        raise ValueError(f"bias: expected {features} numbers, one a feature map; came {b.size}")
    return b


def _widths(padding: Padding2D, filter_shape: tuple[int, ...]) -> list[tuple[int, int]]:
    by_axis = padding if isinstance(padding, tuple) else (padding, padding)
    return [padding_widths(p, m) for p, m in zip(by_axis, filter_shape, strict=True)]
