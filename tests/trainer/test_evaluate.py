from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_trainer.arrays import Float32Array
from inferry_trainer.evaluate import BATCH_SIZE, evaluate_probabilities, predict_probabilities


def random_probabilities(count: int, seed: int) -> Float32Array:
    rows: Float32Array = np.random.default_rng(seed).random((count, 5), np.float32) + np.float32(1e-3)
    rows /= rows.sum(axis=1, keepdims=True)
    return rows


@given(st.integers(1, 200), st.integers(0, 1000))
def test_every_image_is_counted_once(count: int, seed: int) -> None:
    labels = np.random.default_rng(seed + 1).integers(0, 5, count)
    evaluation = evaluate_probabilities(random_probabilities(count, seed), labels)
    assert evaluation.images == evaluation.confusion.sum() == count
    assert evaluation.correct == np.trace(evaluation.confusion)
    assert evaluation.accuracy == evaluation.correct / count
    assert np.array_equal(evaluation.confusion.sum(axis=1), np.bincount(labels, minlength=5))


def test_the_loss_is_keras_cross_entropy() -> None:
    probabilities, labels = random_probabilities(50, 1), np.arange(50) % 5
    expected = float(keras.losses.SparseCategoricalCrossentropy()(labels, probabilities))
    assert evaluate_probabilities(probabilities, labels).loss == pytest.approx(expected, rel=1e-5)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    evaluation = evaluate_probabilities(np.array([[1, 0]], np.float32), np.array([1]))
    assert evaluation.loss == pytest.approx(16.118, abs=1e-3)
    assert evaluation.confusion.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("count", [1, BATCH_SIZE, BATCH_SIZE + 3])
def test_no_image_is_dropped_by_batching(count: int) -> None:
    keras.utils.set_random_seed(1)
    model: Any = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)
    outputs = predict_probabilities(model, images)
    assert outputs.shape == (count, 3)
    assert outputs.dtype == np.float32
    assert np.allclose(outputs[-1:], model(images[-1:].astype(np.float32) / 255), atol=1e-6)
