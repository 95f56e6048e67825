"""How good a model is, from uint8 pixels, over every image it is given."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_trainer.arrays import Float32Array, Int64Array, UInt8Array
from inferry_trainer.evaluation.classifier import Classifier, Pixels, outputs_of
from inferry_trainer.evaluation.reliability import Reliability, measure_reliability

BATCH_SIZE = 256
_SMALLEST_PROBABILITY = 1e-7  # Keras' own: the loss of a certain mistake stays finite


@dataclass(frozen=True)
class ClassFigures:
    """What a model's answers are worth for one class.

    Attributes:
        images: that show it.
        correct: of them, how many were called so.
        answered: how many images of any class were called so.
    """

    images: int
    correct: int
    answered: int

    @property
    def recall(self) -> float:
        """Of its images, the fraction that was recognised; 0 without images."""
        return self.correct / self.images if self.images else 0.0

    @property
    def precision(self) -> float:
        """Of the images called so, the fraction that is; 0 without such answers."""
        return self.correct / self.answered if self.answered else 0.0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model's answers are worth.

    Attributes:
        images: how many were asked.
        correct: how many got their own label.
        loss: mean cross-entropy, natural logarithm.
        confusion: `(K, K)` int64; row is the true class, column the answer.
        reliability: probabilities held against frequencies; None where none were kept.
        groups: images and correct answers of groups of images, by name.
    """

    images: int
    correct: int
    loss: float
    confusion: Int64Array
    reliability: Reliability | None = None
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Fraction of 1."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Where the accuracy on all such images lies, with 95 % confidence; fractions of 1."""
        return wilson_interval(self.correct, self.images)

    @property
    def classes(self) -> list[ClassFigures]:
        """Class by class."""
        shown, answered = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return [
            ClassFigures(int(shown[i]), int(self.confusion[i, i]), int(answered[i])) for i in range(len(self.confusion))
        ]

    def to_metrics(self) -> dict[str, float]:
        """What a run's `metrics.json` records of it."""
        low, high = self.interval
        metrics = {
            "test_accuracy": self.accuracy,
            "test_accuracy_low": low,
            "test_accuracy_high": high,
            "test_loss": self.loss,
            "test_images": self.images,
            "test_correct": self.correct,
        }
        if self.reliability is not None:
            metrics["expected_calibration_error"] = self.reliability.expected_error
        return metrics | {
            f"test_accuracy/{name}": correct / images for name, (images, correct) in self.groups.items() if images
        }


def wilson_interval(correct: int, images: int, *, z: float = 1.959964) -> tuple[float, float]:
    """A confidence interval of a proportion that holds near 0 and 1 and for few images (Wilson 1927).

    Args:
        correct: successes.
        images: trials, at least 1.
        z: of the normal distribution; as given, 95 %.
    """
    share = correct / images
    middle = share + z * z / (2 * images)
    reach = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    scale = 1 + z * z / images
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def predict_probabilities(model: Any, images: UInt8Array) -> Float32Array:
    """A Keras model's answers, every image's, the last and smaller batch included.

    Args:
        model: takes pixels in [0, 1]; gives probabilities or logits, one for two classes or K.
        images: `(N, H, W, C)` uint8, 0-255.

    Returns:
        `(N, K)` float32.
    """
    return Classifier(model, Pixels.UNIT, outputs_of(model)).predict(images)


def evaluate_probabilities(
    probabilities: Float32Array, labels: Int64Array, *, groups: Mapping[str, NDArray[np.bool_]] | None = None
) -> Evaluation:
    """Compare answers with the truth. The answer is the class of the largest probability.

    Args:
        probabilities: `(N, K)` float32.
        labels: `(N,)` int64, 0 to K-1.
        groups: which images belong to a group, `(N,)`, by the group's name.
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
        reliability=measure_reliability(probabilities, labels),
        groups={
            name: (int(members.sum()), int((answers == labels)[members].sum()))
            for name, members in (groups or {}).items()
        },
    )
