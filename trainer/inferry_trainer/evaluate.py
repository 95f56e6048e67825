"""How good a model is, from uint8 pixels, over every image it is given."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from inferry_trainer.arrays import Float32Array, Int64Array, UInt8Array
from inferry_trainer.classifier import Classifier, Pixels, outputs_of

BATCH_SIZE = 256
_SMALLEST_PROBABILITY = 1e-7  # Keras' own: the loss of a certain mistake stays finite


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model's answers are worth.

    Attributes:
        images: how many were asked.
        correct: how many got their own label.
        loss: mean cross-entropy, natural logarithm.
        confusion: `(K, K)` int64; row is the true class, column the answer.
    """

    images: int
    correct: int
    loss: float
    confusion: Int64Array

    @property
    def accuracy(self) -> float:
        """Fraction of 1."""
        return self.correct / self.images


def predict_probabilities(model: Any, images: UInt8Array) -> Float32Array:
    """A Keras model's answers, every image's, the last and smaller batch included.

    Args:
        model: takes pixels in [0, 1]; gives probabilities or logits, one for two classes or K.
        images: `(N, H, W, C)` uint8, 0-255.

    Returns:
        `(N, K)` float32.
    """
    return Classifier(model, Pixels.UNIT, outputs_of(model)).predict(images)


def evaluate_probabilities(probabilities: Float32Array, labels: Int64Array) -> Evaluation:
    """Compare answers with the truth.

    Args:
        probabilities: `(N, K)` float32.
        labels: `(N,)` int64, 0 to K-1.
    """
    images, classes = probabilities.shape
    answers = probabilities.argmax(axis=1)
    of_truth = probabilities[np.arange(images), labels].astype(np.float64)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, answers), 1)
    return Evaluation(
        images=images,
        correct=int((answers == labels).sum()),
        loss=float(-np.log(of_truth.clip(_SMALLEST_PROBABILITY, 1)).mean()),
        confusion=confusion,
    )
