import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_trainer.blocks.pooling import global_mean_pool, max_pool, mean_pool

examples = settings(max_examples=25)

FIRST = [
    [10, 255, 125, 0, 170, 100],
    [70, 255, 105, 25, 25, 70],
    [255, 0, 150, 0, 10, 10],
    [0, 255, 10, 10, 150, 20],
    [70, 15, 200, 100, 95, 0],
    [35, 25, 100, 20, 0, 60],
]
SECOND = [
    [100, 100, 100, 50, 100, 50],
    [95, 255, 100, 125, 125, 170],
    [80, 40, 10, 10, 125, 150],
    [255, 30, 150, 20, 120, 125],
    [30, 30, 150, 100, 70, 70],
    [70, 30, 100, 200, 70, 95],
]
THIRD = [
    [2, 1, 7, 1, 2, 5],
    [5, 0, 3, 4, 1, 2],
    [1, 7, 8, 3, 3, 0],
    [0, 3, 2, 0, 1, 1],
    [6, 2, 5, 3, 0, 3],
    [3, 6, 0, 2, 1, 0],
]


@pytest.mark.parametrize("image", [FIRST, SECOND])
def test_two_images_of_the_chapter_have_the_same_maxima(image: list[list[int]]) -> None:
    assert max_pool(image, (2, 2)).tolist() == [[255, 125, 170], [255, 150, 150], [70, 200, 95]]


def test_maxima_of_three_by_three_are_the_chapters() -> None:
    assert max_pool(THIRD, (3, 3), strides=(3, 3)).tolist() == [[8, 5], [6, 3]]


def test_means_of_three_by_three_are_the_chapters() -> None:
    assert mean_pool(THIRD, (3, 3)).round(2).tolist() == [[3.78, 2.33], [3, 1.22]]


def test_what_no_longer_fills_a_neighbourhood_is_dropped() -> None:
    assert max_pool([[1, 2, 9], [3, 4, 9], [9, 9, 9]], (2, 2)).tolist() == [[4]]


@examples
@given(
    shape=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_pooling_is_that_of_keras(shape: tuple[int, int], size: tuple[int, int], stride: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(2, *shape, 3))
    tensor = keras.ops.convert_to_tensor(x, dtype="float64")
    strides = (stride, stride)
    expected_max = keras.ops.max_pool(tensor, size, strides=strides)
    expected_mean = keras.ops.average_pool(tensor, size, strides=strides)
    np.testing.assert_array_equal(max_pool(x, size, strides=strides), np.asarray(expected_max))
    np.testing.assert_allclose(mean_pool(x, size, strides=strides), np.asarray(expected_mean), atol=1e-14)


@examples
@given(seed=st.integers(0, 2**32 - 1))
def test_global_pooling_is_pooling_over_the_whole_image(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(2, 4, 5, 3))
    np.testing.assert_allclose(global_mean_pool(x), mean_pool(x, (4, 5))[:, 0, 0], atol=1e-14)


def test_a_neighbourhood_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at most the padded input's 2; came 3"):
        max_pool([[1, 2], [3, 4]], (3, 2))


def test_a_stack_of_images_without_channels_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"expected an array \(H, W\) or \(N, H, W, C\); came one of shape \(3, 4, 4\)"
    ):
        max_pool(np.ones((3, 4, 4)), (2, 2))
