"""Is it the model that was measured, are its labels in order, and did reduced precision cost too much?"""

import numpy as np

from inferry_trainer.arrays import Int64Array
from inferry_trainer.errors import GateError
from inferry_trainer.evaluation.evaluate import Evaluation
from inferry_trainer.gates.result import GateResult

MAX_ACCURACY_DROP = 0.1  # percentage points
_IMAGES_THAT_MAY_CHANGE_SIDES = 1.5  # between two machines; more mean that another model was measured
_LOSS_TOLERANCE = (3e-3, 1e-4)  # relative and absolute: a GPU rounds otherwise, weights of another epoch differ more
_LEAST_IMAGES = 5  # of a class, before its mistakes say anything


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
    if len(set(labels)) != len(labels) or any(label != " ".join(label.split()) or not label for label in labels):
        raise GateError("labels", f"{list(labels)}: expected different names, each one line without stray spaces")
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


def check_accuracy_drop(evaluation: Evaluation, *, float32_accuracy: float, precision: str, limit: float) -> GateResult:
    """What reduced precision costs, against float32 on the same images.

    Args:
        evaluation: of the variant.
        float32_accuracy: of the float32 graph; fraction of 1.
        precision: of the variant, for the message.
        limit: percentage points that may be lost.

    Raises:
        GateError: `accuracy-drop`.
    """
    drop = 100 * (float32_accuracy - evaluation.accuracy)
    if drop > limit + 1e-9:
        raise GateError(
            "accuracy-drop",
            f"{precision} has a test accuracy of {evaluation.accuracy:.4f}, float32 {float32_accuracy:.4f}: {drop:.3f} "
            f"percentage points are lost; at most {limit:g} are accepted (--max-accuracy-drop). One of the "
            f"{evaluation.images} images is {100 / evaluation.images:.3g} points",
        )
    return GateResult(
        "accuracy-drop",
        {"float32_accuracy": float32_accuracy, "accuracy": evaluation.accuracy, "points": drop, "points_limit": limit},
    )
