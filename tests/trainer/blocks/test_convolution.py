from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as scipy_signal  # type: ignore[import-untyped]

from inferry_trainer.blocks.activations import relu
from inferry_trainer.blocks.checks import Float64Array
from inferry_trainer.blocks.convolution import convolve1d, convolve2d, convolve_channels
from inferry_trainer.blocks.padding import PaddingMode, same_as_keras

modes = st.sampled_from(["full", "same", "valid"])
seeds = st.integers(0, 2**32 - 1)
steps = st.integers(1, 3)
examples = settings(max_examples=50)


def random_array(seed: int, *shape: int) -> Float64Array:
    return np.random.default_rng(seed).normal(size=shape)


# The chapter's numbers.


def test_a_padded_signal_gives_the_chapters_result() -> None:
    y = convolve1d([1, 3, 2, 4, 5, 6, 1, 3], [1, 0, 3, 1, 2], padding=2)
    assert y.tolist() == [5, 14, 16, 26, 24, 34, 19, 22]


def test_a_signal_at_stride_two_gives_the_chapters_result() -> None:
    y = convolve1d([3, 2, 1, 7, 1, 2, 5, 4], [1 / 2, 3 / 4, 1, 1 / 4], stride=2)
    assert y.tolist() == [7, 9, 8]


def test_a_padded_image_gives_the_chapters_result() -> None:
    image = [[1, 3, 2, 4], [5, 6, 1, 3], [1, 2, 0, 2], [3, 4, 3, 2]]
    y = convolve2d(image, [[1, 0, 3], [1, 2, 1], [0, 1, 1]], padding=(1, 1))
    assert y.tolist() == [[11, 25, 32, 13], [19, 25, 24, 13], [13, 28, 25, 17], [11, 17, 14, 9]]


def test_an_image_at_stride_two_gives_every_result_of_the_chapter() -> None:
    kernel = [[0.5, 0.7, 0.4], [0.3, 0.4, 0.1], [0.5, 1, 0.5]]
    y = convolve2d([[2, 1, 2], [5, 0, 1], [1, 7, 3]], kernel, padding=(1, 1), strides=(2, 2))
    np.testing.assert_allclose(y, [[4.6, 1.6], [7.5, 2.9]], rtol=1e-14)


# What always holds.


@examples
@given(n=st.integers(1, 12), m=st.integers(1, 12), mode=modes, stride=steps, seed=seeds)
def test_a_convolved_signal_is_every_stride_of_numpys(
    n: int, m: int, mode: PaddingMode, stride: int, seed: int
) -> None:
    n, m = max(n, m), min(n, m)  # NumPy swaps signal and filter otherwise
    x, w = random_array(seed, n), random_array(seed + 1, m)
    expected = np.convolve(x, w, mode)[::stride]
    np.testing.assert_allclose(convolve1d(x, w, padding=mode, stride=stride), expected, atol=1e-12)


@examples
@given(n=st.integers(1, 8), m=st.integers(1, 12), mode=st.sampled_from(["full", "same"]), seed=seeds)
def test_a_filter_may_be_longer_than_the_signal_where_it_is_padded(
    n: int, m: int, mode: PaddingMode, seed: int
) -> None:
    x, w = random_array(seed, n), random_array(seed + 1, m)
    expected = scipy_signal.convolve(x, w, mode=mode, method="direct")
    np.testing.assert_allclose(convolve1d(x, w, padding=mode), expected, atol=1e-12)


@examples
@given(
    shape=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(steps, steps),
    mode=modes,
    seed=seeds,
)
def test_a_convolved_image_is_every_stride_of_scipys(
    shape: tuple[int, int], size: tuple[int, int], strides: tuple[int, int], mode: PaddingMode, seed: int
) -> None:
    x, w = random_array(seed, *shape), random_array(seed + 1, *size)
    expected = scipy_signal.convolve2d(x, w, mode)[:: strides[0], :: strides[1]]
    np.testing.assert_allclose(convolve2d(x, w, padding=mode, strides=strides), expected, atol=1e-12)


@examples
@given(p=st.tuples(st.integers(0, 3), st.integers(0, 3)), seed=seeds)
def test_explicit_padding_is_the_zeros_one_would_add_by_hand(p: tuple[int, int], seed: int) -> None:
    x, w = random_array(seed, 4, 5), random_array(seed + 1, 3, 2)
    by_hand = np.pad(x, ((p[0], p[0]), (p[1], p[1])))
    np.testing.assert_array_equal(convolve2d(x, w, padding=p), convolve2d(by_hand, w))


@examples
@given(strides=st.tuples(steps, steps), mode=modes, seed=seeds)
def test_a_layer_adds_up_the_convolutions_of_its_channels(
    strides: tuple[int, int], mode: PaddingMode, seed: int
) -> None:
    x, w, b = random_array(seed, 2, 5, 6, 3), random_array(seed + 1, 3, 2, 3, 4), random_array(seed + 2, 4)
    z = [
        [sum(convolve2d(image[..., c], w[..., c, f], padding=mode, strides=strides) for c in range(3)) + b[f]]
        for image in x
        for f in range(4)
    ]
    expected = np.moveaxis(np.reshape(z, (2, 4, *np.shape(z)[2:])), 1, -1)
    actual = convolve_channels(x, w, b, padding=mode, strides=strides, activation=relu)
    np.testing.assert_allclose(actual, np.maximum(expected, 0), atol=1e-12)


@examples
@given(
    shape=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=steps,
    padding=st.sampled_from(["same", "valid"]),
    seed=seeds,
)
def test_keras_computes_the_convolution_with_a_rotated_filter(
    shape: tuple[int, int], size: tuple[int, int], stride: int, padding: str, seed: int
) -> None:
    x, w = random_array(seed, 2, *shape, 3), random_array(seed + 1, *size, 3, 4)
    expected = keras_convolution(x, w, stride, padding)
    if padding == "same":
        x = np.pad(x, ((0, 0), *(same_as_keras(n, m, stride) for n, m in zip(shape, size, strict=True)), (0, 0)))
    actual = convolve_channels(x, w[::-1, ::-1], strides=(stride, stride))
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def keras_convolution(x: Float64Array, w: Float64Array, stride: int, padding: str) -> Any:
    tensors = (keras.ops.convert_to_tensor(array, dtype="float64") for array in (x, w))
    return np.asarray(keras.ops.conv(*tensors, strides=stride, padding=padding))


# What is refused.


@pytest.mark.parametrize("values", [[[1, 2], [3, 4]], 3, []])
def test_a_signal_has_one_axis_and_at_least_one_element(values: Any) -> None:
    with pytest.raises(ValueError, match="signal: expected"):
        convolve1d(values, [1])


def test_a_filter_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at most the padded input's 2; came 3"):
        convolve2d(np.ones((2, 9)), np.ones((3, 3)))


@pytest.mark.parametrize("strides", [(0, 1), (1, -1)])
def test_a_stride_below_one_is_refused(strides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="stride: expected at least 1"):
        convolve2d(np.ones((4, 4)), np.ones((2, 2)), strides=strides)


def test_channels_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 3 channels, as many as the kernels have; came 1"):
        convolve_channels(np.ones((1, 4, 4, 1)), np.ones((2, 2, 3, 5)))


def test_a_bias_is_never_spread_over_the_feature_maps() -> None:
    with pytest.raises(ValueError, match="expected 5 numbers, one a feature map; came 1"):
        convolve_channels(np.ones((1, 4, 4, 3)), np.ones((2, 2, 3, 5)), [1.0])
