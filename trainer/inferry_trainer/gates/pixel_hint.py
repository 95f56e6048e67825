"""What a model would be worth if it took its pixels to be something else."""

from dataclasses import replace

from inferry_trainer.datasets import Part
from inferry_trainer.evaluation.classifier import Classifier, Pixels
from inferry_trainer.evaluation.evaluate import evaluate_probabilities


def better_pixels(classifier: Classifier | None, test: Part | None) -> str:
    """What to try where a model guesses, as the end of a message; empty where no other reading is better.

    Args:
        classifier: the Keras model; None where it is not at hand.
        test: labelled images.
    """
    if classifier is None or test is None:
        return ""
    accuracies = {
        pixels: evaluate_probabilities(replace(classifier, pixels=pixels).predict(test.images), test.labels).accuracy
        for pixels in Pixels
    }
    best = max(accuracies, key=lambda pixels: accuracies[pixels])
    if accuracies[best] <= accuracies[classifier.pixels]:
        return ""
    return (
        f"; its pixels were taken to be {classifier.pixels.value}, with an accuracy of "
        f"{accuracies[classifier.pixels]:.3f}: with --pixels {best.value} it is {accuracies[best]:.3f}"
    )
