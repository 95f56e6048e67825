"""Is it the model that was measured, are its labels in order, and did reduced precision cost too much?"""

from collections.abc import Callable

import numpy as np

from inferry_trainer.arrays import Int64Array
from inferry_trainer.errors import GateError, name_some
from inferry_trainer.evaluation.evaluate import Evaluation
from inferry_trainer.gates.result import GateResult

MAX_ACCURACY_DROP = 0.1  # percentage points
_IMAGES_THAT_MAY_CHANGE_SIDES = 1.5  # between two machines; more mean that another model was measured
_LOSS_TOLERANCE = (3e-3, 1e-4)  # relative and absolute: a GPU rounds otherwise, weights of another epoch differ more
_ONE_IN_TWENTY = 1.645  # standard deviations
_LEAST_IMAGES = 5  # of a class, or of all but the commonest, before its mistakes say anything


def check_recorded(evaluation: Evaluation, *, accuracy: float, loss: float | None, where: str) -> GateResult:
    """Compare what a model does with what was recorded of it, on the same images.

    The loss is the finer of the two: weights of another epoch may well have the same accuracy.

    Args:
        evaluation: of the model now.
        accuracy: recorded; fraction of 1.
        loss: recorded; None where it was not.
        where: it was recorded, for the message.

    Raises:
        GateError: `recorded-figures`.
    """
    changed = abs(evaluation.accuracy - accuracy) * evaluation.images
    allowed = np.inf if loss is None else _LOSS_TOLERANCE[0] * abs(loss) + _LOSS_TOLERANCE[1]
    if changed > _IMAGES_THAT_MAY_CHANGE_SIDES or (loss is not None and abs(evaluation.loss - loss) > allowed):
        recorded = f"a test accuracy of {accuracy:.4f}" + ("" if loss is None else f" and a loss of {loss:.5f}")
        raise GateError(
            "recorded-figures",
            f"{where} recorded {recorded}; the model has {evaluation.accuracy:.4f} and {evaluation.loss:.5f} on the "
            "same images: model, images and figures do not belong together",
        )
    return GateResult(
        "recorded-figures",
        {"accuracy": evaluation.accuracy, "accuracy_recorded": accuracy, "loss": evaluation.loss}
        | ({} if loss is None else {"loss_recorded": loss}),
    )


def check_labels(confusion: Int64Array, labels: tuple[str, ...]) -> GateResult:
    """Look for labels that changed places: most of A answered B, and most of B (or of C, and so on) A.

    Args:
        confusion: `(K, K)`; row is the true class, column the answer.
        labels: K names.

    Raises:
        GateError: `labels`: names the ring.
    """
    if len(labels) != len(confusion):
        raise GateError("labels", f"the model gives {len(confusion)} probabilities an image; there are {len(labels)}")
    odd = [repr(one) for one in labels if labels.count(one) > 1 or one != " ".join(one.split()) or not one]
    if odd:
        raise GateError("labels", f"{name_some(odd)}: expected different names, each one line without stray spaces")
    ring = _swapped(confusion)
    if ring:
        pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
        steps = ", ".join(f"most of {labels[a]!r} are called {labels[b]!r}" for a, b in pairs)
        raise GateError("labels", f"labels look swapped: {steps}; are they in the order of the model's outputs?")
    return GateResult("labels", {"classes": len(labels)})


def _swapped(confusion: Int64Array) -> list[int]:
    """Classes that lead to one another by the answer that more than half of their images get; empty where none do."""
    totals = confusion.sum(axis=1)
    most = confusion.argmax(axis=1)
    clear = (totals >= _LEAST_IMAGES) & (2 * confusion.max(axis=1) > totals)
    for start in range(len(confusion)):
        path, here = [], start
        while clear[here] and here not in path:
            path.append(here)
            here = int(most[here])
        if len(path) > 1 and here == start:
            return path
    return []


def check_above_chance(evaluation: Evaluation, *, hint: Callable[[], str] = str) -> GateResult:
    """Look for answers that have nothing to do with the pictures.

    A model that ignores the picture recognises, of each class, the share of all images that it gives that label: 1/K
    on average over the classes, however often each occurs. The gate allows for luck that one such model in twenty has.

    Args:
        evaluation: of the model.
        hint: asked where the model guesses: with which other statement about its inputs it would not; empty for none.

    Returns:
        With a note where the model guesses. It is no error: a model may have learnt no more than that.
    """
    shown = [one for one in evaluation.classes if one.images]
    others = evaluation.images - max(one.images for one in shown)
    if others < _LEAST_IMAGES:
        return GateResult("above-chance", reason=f"all test images but {others} show one class; that tells little")
    recall = float(np.mean([one.recall for one in shown]))
    guessed = np.array([one.answered for one in shown]) / evaluation.images
    chance = float(guessed.mean())
    by_luck = _ONE_IN_TWENTY * float(np.sqrt(sum(g * (1 - g) / c.images for g, c in zip(guessed, shown, strict=True))))
    least = chance + by_luck / len(shown)
    figures = {"mean_recall": recall, "mean_recall_least": least}
    if recall > least:  # guard: gates-chance
        return GateResult("above-chance", figures)
    note = (
        f"over {evaluation.images} images of {len(shown)} classes the model is no better than guessing: of a class it "
        f"recognises {recall:.3f} on average, and who answers as often without looking gets {least:.3f} by luck"
    )
    return GateResult("above-chance", figures, note=note + hint())


def check_accuracy_drop(evaluation: Evaluation, *, keras_accuracy: float, precision: str, limit: float) -> GateResult:
    """What reduced precision costs, against Keras on the same images.

    Args:
        evaluation: of the variant.
        keras_accuracy: of the Keras model; fraction of 1.
        precision: of the variant, for the message.
        limit: percentage points that may be lost.

    Raises:
        GateError: `accuracy-drop`.
    """
    drop = 100 * (keras_accuracy - evaluation.accuracy)
    if drop > limit + 1e-9:
        raise GateError(
            "accuracy-drop",
            f"{precision} has a test accuracy of {evaluation.accuracy:.4f}, Keras {keras_accuracy:.4f}: {drop:.3f} "
            f"percentage points are lost; at most {limit:g} are accepted (--max-accuracy-drop). One of the "
            f"{evaluation.images} images is {100 / evaluation.images:.3g} points",
        )
    return GateResult(
        "accuracy-drop",
        {"keras_accuracy": keras_accuracy, "accuracy": evaluation.accuracy, "points": drop, "points_limit": limit},
    )
