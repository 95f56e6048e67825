"""How accurate a model would be if its pixels were scaled otherwise than was stated."""

from dataclasses import replace

from inferry_trainer.datasets import Part
from inferry_trainer.evaluation.classifier import Classifier, Pixels
from inferry_trainer.evaluation.evaluate import evaluate_probabilities
from inferry_trainer.gates.accuracy import check_above_chance


def better_pixels(classifier: Classifier | None, test: Part | None) -> str:
    """What to try where a model guesses, as the end of a message; empty where it guesses with every reading.

    Args:
        classifier: the Keras model; None where it is not at hand.
        test: labelled images.
    """
    if classifier is None or test is None:
        return ""
    evaluations = {
        pixels: evaluate_probabilities(replace(classifier, pixels=pixels).predict(test.images), test.labels)
        for pixels in Pixels
        if pixels is not classifier.pixels
    }
    better = {pixels: each.accuracy for pixels, each in evaluations.items() if not check_above_chance(each).note}
    if not better:
        return ""
    best = max(better, key=lambda pixels: better[pixels])
    return (
        f". Its pixels were taken to be {classifier.pixels.value}; with --pixels {best.value} its accuracy is "
        f"{better[best]:.3f}"
    )
