"""The mistakes that a model was surest of: what to look at first."""

from dataclasses import dataclass

import numpy as np

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.datasets import Part

SHOWN = 40


@dataclass(frozen=True, eq=False)
class Mistake:
    """An image that was answered wrongly.

    Attributes:
        position: in the test set.
        image: `(H, W, C)` uint8.
        truth: its class.
        answer: what the model said instead.
        probability: of that answer.
        truth_probability: of the right one.
    """

    position: int
    image: UInt8Array
    truth: int
    answer: int
    probability: float
    truth_probability: float


def worst_mistakes(probabilities: Float32Array, test: Part, *, count: int = SHOWN) -> list[Mistake]:
    """The wrong answers that came with the highest probability, highest first."""
    answers = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(answers != test.labels)
    surest = wrong[np.argsort(-probabilities[wrong, answers[wrong]], kind="stable")][:count]
    return [
        Mistake(
            position=int(position),
            image=test.images[position],
            truth=int(test.labels[position]),
            answer=int(answers[position]),
            probability=float(probabilities[position, answers[position]]),
            truth_probability=float(probabilities[position, test.labels[position]]),
        )
        for position in surest
    ]
