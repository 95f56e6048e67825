"""How much is padded, and how large the output of a convolution or of pooling is.

The chapter's three modes, for an input of n, a filter of m and stride 1:

    full   every overlap counts, however small   n + m - 1 outputs
    same   as many outputs as inputs             n outputs
    valid  the filter never leaves the input     n - m + 1 outputs
"""

from typing import Literal, TypeAlias

PaddingMode: TypeAlias = Literal["full", "same", "valid"]
Padding: TypeAlias = PaddingMode | int


def output_size(input_size: int, filter_size: int, *, padding: int = 0, stride: int = 1) -> int:
    """The number of outputs along one axis: o = floor((n + 2p - m) / s) + 1.

    Args:
        input_size: n, at least 1.
        filter_size: m, at least 1.
        padding: p, zeros on each side.
        stride: s, at least 1.

    Raises:
        ValueError: a number out of its range, or a filter larger than the padded input.
    """
    return _output_size(input_size, filter_size, padded=2 * _at_least(0, "padding", padding), stride=stride)


def padding_widths(padding: Padding, filter_size: int) -> tuple[int, int]:
    """How many zeros go before and after the input.

    An even filter has no middle, so `same` must prefer a side. For a rotated filter it is the
    front, as in `numpy.convolve` and SciPy.

    Args:
        padding: a mode of the chapter, or p, the same number on both sides.
        filter_size: m.

    Raises:
        ValueError: an unknown mode, or a negative number.
    """
    if isinstance(padding, int):
        return _at_least(0, "padding", padding), padding
    m = _at_least(1, "filter size", filter_size)
    widths = {"full": (m - 1, m - 1), "same": (m // 2, (m - 1) // 2), "valid": (0, 0)}
    if padding not in widths:
        raise ValueError(f"padding: expected 'full', 'same', 'valid' or a whole number; came {padding!r}")
    return widths[padding]


def same_as_keras(input_size: int, filter_size: int, stride: int) -> tuple[int, int]:
    """How many rows Keras pads before and after for its `same`: the least that gives ceil(n / s) outputs.

    At stride 1 and an odd filter this is the chapter's mode. Beyond it the two part: Keras takes
    the stride into account, and its surplus element goes to the end.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn, "Notes on padding".
    """
    n = _at_least(1, "input size", input_size)
    m = _at_least(1, "filter size", filter_size)
    s = _at_least(1, "stride", stride)
    outputs = -(-n // s)
    total = max((outputs - 1) * s + m - n, 0)
    return total // 2, total - total // 2


def check_windows(input_shape: tuple[int, ...], filter_shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Make sure that a filter fits into an input that is padded already.

    Raises:
        ValueError: a stride or size below 1, or a filter that does not fit.
    """
    for n, m, s in zip(input_shape, filter_shape, strides, strict=True):
        _output_size(n, m, padded=0, stride=s)


def _output_size(n: int, m: int, *, padded: int, stride: int) -> int:
    _at_least(1, "input size", n)
    _at_least(1, "filter size", m)
    _at_least(1, "stride", stride)
    if m > n + padded:
        raise ValueError(f"filter size: expected at most the padded input's {n + padded}; came {m}")
    return (n + padded - m) // stride + 1


def _at_least(least: int, name: str, value: int) -> int:
    if value < least:
        raise ValueError(f"{name}: expected at least {least}; came {value}")
    return value
