"""A run's history, an epoch at a time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to; losses are means an image, accuracies fractions of 1.

    Attributes:
        epoch: from 1.
        loss: over the epoch's training images, augmented, while the weights moved.
        accuracy: likewise.
        val_loss: over the validation images, after the epoch, with averaged weights where the recipe has them.
        val_accuracy: likewise.
        wall_s: seconds the epoch took, validation included.
        cpu_s: of all of the process's threads.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    wall_s: float
    cpu_s: float = 0.0
