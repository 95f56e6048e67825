from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_trainer.arrays import Float32Array
from inferry_trainer.evaluation.evaluate import (
    BATCH_SIZE,
    evaluate_probabilities,
    predict_probabilities,
    wilson_interval,
)
from inferry_trainer.evaluation.reliability import BINS, measure_reliability


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


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_confidence_interval_holds_the_accuracy_and_stays_a_fraction(images: int, share: float) -> None:
    correct = round(share * images)
    low, high = wilson_interval(correct, images)
    assert 0 <= low <= correct / images + 1e-12
    assert correct / images - 1e-12 <= high <= 1
    assert low < high
    wider = wilson_interval(correct, images, z=3)
    assert wider[0] <= low + 1e-12
    assert high <= wider[1] + 1e-12


def test_the_interval_is_wilsons() -> None:
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


@given(st.integers(1, 300), st.integers(0, 1000))
def test_every_image_lies_in_one_bin_of_the_reliability_diagram(count: int, seed: int) -> None:
    probabilities = random_probabilities(count, seed)
    reliability = measure_reliability(probabilities, np.random.default_rng(seed).integers(0, 5, count))
    assert len(reliability.bins) == BINS
    assert sum(part.images for part in reliability.bins) == count
    assert 0 <= reliability.expected_error <= 1
    for part in reliability.bins:
        if part.images:
            assert part.low - 1e-6 <= part.probability <= part.high + 1e-6


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    stated = np.repeat([[0.7, 0.3], [0.1, 0.9]], 10, axis=0).astype(np.float32)
    came_true = np.array([1] * 3 + [0] * 7 + [1] * 9 + [0])
    assert measure_reliability(stated, came_true).expected_error == pytest.approx(0, abs=1e-6)
    assert measure_reliability(stated, 1 - came_true).expected_error == pytest.approx(0.6, abs=1e-6)


def test_groups_are_counted_apart() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    groups = {"first two": np.array([True, True, False]), "nobody": np.zeros(3, bool)}
    evaluation = evaluate_probabilities(probabilities, np.array([0, 0, 0]), groups=groups)
    assert evaluation.groups == {"first two": (2, 1), "nobody": (0, 0)}
    assert evaluation.to_metrics()["test_accuracy/first two"] == 0.5
    assert "test_accuracy/nobody" not in evaluation.to_metrics()
    assert evaluation.correct == 2  # equal probabilities: the first class, as with a cut at one half
    assert [(one.recall, one.precision) for one in evaluation.classes] == [(2 / 3, 1), (0, 0)]
