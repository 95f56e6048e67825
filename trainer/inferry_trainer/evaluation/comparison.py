"""Two models asked about the same images: who is right more often, and is that more than chance?"""

import math
from dataclasses import dataclass

import numpy as np

from inferry_trainer.arrays import Float32Array, Int64Array
from inferry_trainer.evaluation.evaluate import Evaluation, evaluate_probabilities


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two models' answers to the same images have in common.

    Attributes:
        first: the evaluation of the first one's answers.
        second: the evaluation of the second one's.
        disagreements: positions of the images that they answer differently.
        only_first_right: how many images only the first answers rightly.
        only_second_right: how many images only the second answers rightly.
        max_abs_difference: between two probabilities.
    """

    first: Evaluation
    second: Evaluation
    disagreements: Int64Array
    only_first_right: int
    only_second_right: int
    max_abs_difference: float

    @property
    def agreement(self) -> float:
        """Fraction of the images that both answer alike."""
        return 1 - len(self.disagreements) / self.first.images

    @property
    def chance(self) -> float:
        """How likely so unequal a count is if both are equally good: McNemar's exact test, two-sided."""
        return sign_test(self.only_first_right, self.only_second_right)


def compare_answers(first: Float32Array, second: Float32Array, labels: Int64Array) -> Comparison:
    """Compare two models' probabilities.

    Args:
        first: `(N, K)` float32.
        second: `(N, K)` float32.
        labels: `(N,)` int64, the truth.
    """
    a, b = first.argmax(axis=1), second.argmax(axis=1)
    return Comparison(
        first=evaluate_probabilities(first, labels),
        second=evaluate_probabilities(second, labels),
        disagreements=np.flatnonzero(a != b),
        only_first_right=int(((a == labels) & (b != labels)).sum()),
        only_second_right=int(((b == labels) & (a != labels)).sum()),
        max_abs_difference=float(np.abs(first.astype(np.float64) - second).max()),
    )


def sign_test(wins: int, losses: int) -> float:
    """Probability of a split at least so uneven of `wins + losses` tosses of a fair coin; 1 for none."""
    tosses, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(tosses, heads) for heads in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**tosses))
