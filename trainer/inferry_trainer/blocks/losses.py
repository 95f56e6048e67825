"""The three cross-entropies, each from probabilities or from logits.

    binary              two classes, one number an image     labels 0 or 1
    categorical         K classes, K numbers an image        one-hot labels, or any distribution
    sparse categorical  K classes, K numbers an image        labels 0 ... K-1

All are the mean of -log(probability of the true class) over the batch, as Keras reports them.
From logits they stay exact for every finite logit. From probabilities they cannot: a network so
wrong that its probability has been rounded to 0 costs infinity here (Keras clips at 1e-7 and says
16.1), which is why training is done from logits.
"""

import numpy as np
from numpy.typing import ArrayLike

from inferry_trainer.blocks.activations import log_sigmoid, log_softmax
from inferry_trainer.blocks.checks import Float64Array, as_float64

_ROW_SUM_TOLERANCE = 1e-5  # probabilities that were computed in float32 add up to 1 within 1e-6


def binary_cross_entropy(targets: ArrayLike, predictions: ArrayLike, *, from_logits: bool = False) -> float:
    """The mean of -[y log p + (1 - y) log(1 - p)].

    Args:
        targets: y in [0, 1], `(N,)` or `(N, 1)`.
        predictions: p, or their logits; the same shape.
        from_logits: what the predictions are.

    Raises:
        ValueError: shapes that differ (never broadcast: `(N,)` against `(N, 1)` would compare each
            with all), or numbers outside [0, 1].
    """
    y = as_float64("targets", targets, axes="N|NK")
    predicted = as_float64("predictions", predictions, axes="N|NK")
    _check_same_shape(y, predicted)
    _check_unit_range("targets", y)
    if from_logits:
        log_p, log_q = log_sigmoid(predicted), log_sigmoid(-predicted)
    else:
        _check_unit_range("predictions", predicted)
        log_p, log_q = _log(predicted), _log(1.0 - predicted)
    return float(np.mean(_cost(y, log_p) + _cost(1.0 - y, log_q)))


def categorical_cross_entropy(targets: ArrayLike, predictions: ArrayLike, *, from_logits: bool = False) -> float:
    """The mean over images of -(sum over classes of y log p).

    Args:
        targets: `(N, K)`, each row's sum 1.
        predictions: `(N, K)` probabilities, or logits.
        from_logits: what the predictions are.

    Raises:
        ValueError: shapes that differ, or rows that are no probability distributions.
    """
    y = as_float64("targets", targets, axes="NK")
    predicted = as_float64("predictions", predictions, axes="NK")
    _check_same_shape(y, predicted)
    _check_distributions("targets", y)
    return float(np.mean(_cost(y, _log_probabilities(predicted, from_logits=from_logits)).sum(axis=1)))


def sparse_categorical_cross_entropy(labels: ArrayLike, predictions: ArrayLike, *, from_logits: bool = False) -> float:
    """The mean over images of -log(probability of the image's label).

    Args:
        labels: `(N,)` whole numbers, 0 to K-1.
        predictions: `(N, K)` probabilities, or logits.
        from_logits: what the predictions are.

    Raises:
        ValueError: another number of labels than of predictions, labels that are not classes, or rows
            that are no probability distributions.
    """
    predicted = as_float64("predictions", predictions, axes="NK")
    y = np.asarray(labels)
    count, classes = predicted.shape
    if y.shape != (count,) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels: expected {count} whole numbers; came shape {y.shape} of {y.dtype}")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels: expected 0 to {classes - 1}; came {y.min()} to {y.max()}")
    log_p = _log_probabilities(predicted, from_logits=from_logits)
    return float(-np.mean(log_p[np.arange(count), y]))


def _log_probabilities(predicted: Float64Array, *, from_logits: bool) -> Float64Array:
    if from_logits:
        return log_softmax(predicted)
    _check_distributions("predictions", predicted)
    return _log(predicted)


def _log(probabilities: Float64Array) -> Float64Array:
    with np.errstate(divide="ignore"):  # log 0 is -inf, and meant
        return np.asarray(np.log(probabilities))


def _cost(weights: Float64Array, log_p: Float64Array) -> Float64Array:
    """-weights x log_p, where a class of weight 0 costs nothing even at probability 0."""
    return np.multiply(weights, -log_p, where=weights > 0, out=np.zeros_like(log_p))


def _check_same_shape(targets: Float64Array, predictions: Float64Array) -> None:
    if targets.shape != predictions.shape:
        raise ValueError(f"predictions: expected the targets' shape {targets.shape}; came {predictions.shape}")


def _check_unit_range(name: str, values: Float64Array) -> None:
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name}: expected numbers in [0, 1]; came {values.min():.6g} to {values.max():.6g}")


def _check_distributions(name: str, rows: Float64Array) -> None:
    _check_unit_range(name, rows)
    off = float(np.abs(rows.sum(axis=1) - 1).max())
    if off > _ROW_SUM_TOLERANCE:
        raise ValueError(f"{name}: expected rows whose sum is 1; came one that is off by {off:.3g}")
