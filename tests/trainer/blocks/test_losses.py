from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_trainer.blocks.activations import relu, sigmoid, softmax
from inferry_trainer.blocks.losses import (
    binary_cross_entropy,
    categorical_cross_entropy,
    sparse_categorical_cross_entropy,
)

LOGITS = [[1.5, 0.8, 2.1]]
seeds = st.integers(0, 2**32 - 1)
examples = settings(max_examples=25)


def test_binary_cross_entropy_is_the_chapters_both_ways() -> None:
    assert round(float(sigmoid(0.8)), 2) == 0.69
    assert round(binary_cross_entropy([1], [0.8], from_logits=True), 4) == 0.3711
    assert round(binary_cross_entropy([1], sigmoid([0.8])), 4) == 0.3711


def test_categorical_cross_entropy_is_the_chapters_both_ways() -> None:
    assert round(categorical_cross_entropy([[0, 0, 1]], LOGITS, from_logits=True), 4) == 0.5996
    assert round(categorical_cross_entropy([[0, 0, 1]], softmax(LOGITS)), 4) == 0.5996


def test_sparse_categorical_cross_entropy_is_the_chapters_both_ways() -> None:
    assert round(sparse_categorical_cross_entropy([2], LOGITS, from_logits=True), 4) == 0.5996
    assert round(sparse_categorical_cross_entropy([2], softmax(LOGITS)), 4) == 0.5996


@examples
@given(seed=seeds, scale=st.floats(0.1, 4))
def test_losses_are_those_of_keras(seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    logits = (generator.normal(size=(5, 3)) * scale).clip(-6, 6)  # Keras cuts probabilities off at 1e-7
    labels, binary = generator.integers(0, 3, 5), generator.integers(0, 2, (5, 1))
    one_hot, one_logit = np.eye(3)[labels], logits[:, :1]
    losses = keras.losses
    for from_logits, rows, single in ((True, logits, one_logit), (False, softmax(logits), sigmoid(one_logit))):
        options: dict[str, Any] = {"from_logits": from_logits, "dtype": "float64"}
        ours = (
            binary_cross_entropy(binary, single, from_logits=from_logits),
            categorical_cross_entropy(one_hot, rows, from_logits=from_logits),
            sparse_categorical_cross_entropy(labels, rows, from_logits=from_logits),
        )
        theirs = (
            losses.BinaryCrossentropy(**options)(binary, single),
            losses.CategoricalCrossentropy(**options)(one_hot, rows),
            losses.SparseCategoricalCrossentropy(**options)(labels, rows),
        )
        np.testing.assert_allclose(ours, [float(loss) for loss in theirs], rtol=1e-6)


@examples
@given(seed=seeds)
def test_a_single_logit_is_the_second_of_two_classes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    z, y = generator.normal(size=6) * 5, generator.integers(0, 2, 6)
    two = np.stack([np.zeros(6), z], axis=1)
    expected = sparse_categorical_cross_entropy(y, two, from_logits=True)
    assert binary_cross_entropy(y, z, from_logits=True) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_no_finite_logit_is_too_large(logit: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert binary_cross_entropy([int(logit < 0)], [logit], from_logits=True) == 1e4
        assert binary_cross_entropy([int(logit > 0)], [logit], from_logits=True) == 0
        rows = [[logit, 0.0]]
        assert sparse_categorical_cross_entropy([int(logit > 0)], rows, from_logits=True) == 1e4
        assert categorical_cross_entropy([[logit > 0, logit < 0]], rows, from_logits=True) == 0
        assert softmax(rows).sum() == 1


def test_certainty_costs_nothing_when_right_and_everything_when_wrong() -> None:
    assert categorical_cross_entropy([[1, 0]], [[1, 0]]) == 0
    assert sparse_categorical_cross_entropy([1], [[1, 0]]) == np.inf
    assert binary_cross_entropy([1, 0], [1, 0]) == 0
    assert binary_cross_entropy([1, 0], [1, 1]) == np.inf


def test_relu_keeps_what_is_positive() -> None:
    assert relu([[-2.0, 0.0, 3.0]]).tolist() == [[0, 0, 3]]


@examples
@given(z=st.floats(-700, 700))
def test_sigmoids_of_a_logit_and_its_opposite_add_up_to_one(z: float) -> None:
    assert float(sigmoid(z) + sigmoid(-z)) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("loss", "targets", "predictions", "message"),
    [
        (binary_cross_entropy, [1, 0], [[0.5], [0.5]], r"expected the targets' shape \(2,\); came \(2, 1\)"),
        (binary_cross_entropy, [2], [0.5], r"targets: expected numbers in \[0, 1\]; came 2 to 2"),
        (binary_cross_entropy, [1], [1.5], r"predictions: expected numbers in \[0, 1\]; came 1.5"),
        (binary_cross_entropy, [1], [np.nan], r"predictions: expected numbers in \[0, 1\]; came nan"),
        (categorical_cross_entropy, [[1, 1]], [[0.5, 0.5]], "targets: expected rows whose sum is 1; .* off by 1"),
        (categorical_cross_entropy, [[1, 0]], [[0.5, 0.4]], "predictions: expected rows whose sum is 1"),
        (sparse_categorical_cross_entropy, [2], [[0.5, 0.5]], "labels: expected 0 to 1; came 2 to 2"),
        (sparse_categorical_cross_entropy, [-1], [[0.5, 0.5]], "labels: expected 0 to 1; came -1"),
        (sparse_categorical_cross_entropy, [0, 1], [[0.5, 0.5]], "labels: expected 1 whole numbers; came shape"),
        (sparse_categorical_cross_entropy, [0.5], [[0.5, 0.5]], "labels: expected 1 whole numbers; .* float64"),
    ],
)
def test_what_is_no_target_or_no_probability_is_refused(
    loss: Any, targets: Any, predictions: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss(targets, predictions)
