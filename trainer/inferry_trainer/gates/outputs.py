"""Are the answers probabilities, do they depend on the picture, and are they Keras' own?"""

from dataclasses import dataclass, replace

import numpy as np

from inferry_trainer.arrays import Float32Array
from inferry_trainer.errors import GateError
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.rounding import Rounding, Truth, distances

_LEAST_SPREAD = 1e-3  # a trained network's answers differ by a thousand times as much
_ROW_SUM_TOLERANCE = {"float32": 1e-4, "float16": 4e-3, "int8": 1e-4}


def check_varied(outputs: Float32Array, *, who: str, precision: str = "float32") -> GateResult:
    """Answers that are probabilities and differ between images.

    Args:
        outputs: `(N, K)` float32.
        who: gave them, for the message.
        precision: of the weights; half precision rounds a row's sum.

    Raises:
        GateError: `varied-outputs`.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2 or not np.isfinite(outputs).all():
        raise GateError(
            "varied-outputs", f"{who}'s outputs {outputs.shape} are not finite probabilities of shape (N, K), K > 1"
        )
    off = float(np.abs(outputs.sum(axis=1, dtype=np.float64) - 1).max())
    if off > _ROW_SUM_TOLERANCE[precision] or outputs.min() < 0:
        raise GateError("varied-outputs", f"{who}'s outputs are not probabilities: a row's sum is off 1 by {off:.3g}")
    spread = float(np.ptp(outputs, axis=0).max())
    if len(outputs) > 1 and spread < _LEAST_SPREAD:
        raise GateError(
            "varied-outputs",
            f"{who} gives every image the same answer: over {len(outputs)} images no probability varies by more than "
            f"{spread:.3g}; expected at least {_LEAST_SPREAD:g}",
        )
    answered = len(np.unique(outputs.argmax(axis=1)))
    return GateResult("varied-outputs", {"spread": spread, "spread_least": _LEAST_SPREAD, "classes_answered": answered})


@dataclass(frozen=True)
class ParityReport:
    """Keras compared with an exported graph in ONNX Runtime on the CPU.

    Attributes:
        images: how many were compared.
        max_abs_difference: between two probabilities.
        rounding: of the model in float32: what is accepted of the float32 graph, and what counts as a tie.
        label_mismatches: images whose most probable label differs.
        label_ties: of those, the ones whose two best probabilities lie within rounding of each other: no two
            programs need agree on them.
        to_truth: largest distance of the graph's probabilities from the float64 evaluation, and the middle
            image's; None where it was not asked.
    """

    images: int
    max_abs_difference: float
    rounding: Rounding
    label_mismatches: int
    label_ties: int
    to_truth: tuple[float, float] | None = None

    def to_result(self, *, judged: bool = True) -> GateResult:
        """The comparison as the result of a gate that was passed; it states the limit if one was applied."""
        figures = {
            "images": float(self.images),
            "max_abs_difference": self.max_abs_difference,
            "label_mismatches": float(self.label_mismatches),
            "label_ties": float(self.label_ties),
            "rounding": self.rounding.difference_limit,
            "floor": self.rounding.floor,
        }
        if judged:
            figures["max_abs_difference_limit"] = self.rounding.difference_limit
        if self.to_truth is not None:
            figures |= {
                "float64_images": float(self.rounding.images),
                "keras_to_float64": self.rounding.largest,
                "onnx_to_float64": self.to_truth[0],
                "onnx_to_float64_limit": self.rounding.limit,
            }
        return GateResult("parity", figures)


def compare_outputs(
    keras_outputs: Float32Array,
    onnx_outputs: Float32Array,
    *,
    truth: Truth | None = None,
    rounding: Rounding = Rounding(),  # noqa: B008 - frozen
) -> ParityReport:
    """Compare both programs' answers to the same images, and refuse more than rounding.

    Args:
        keras_outputs: `(N, K)` float32 probabilities.
        onnx_outputs: from the float32 graph, in the same shape.
        truth: the float64 evaluation of some of the images.
        rounding: of Keras about that truth: what is accepted.

    Raises:
        GateError: `parity`: answers, or labels, that differ by more than rounding.
    """
    report = measure_difference(keras_outputs, onnx_outputs, rounding=rounding)
    different = report.label_mismatches - report.label_ties
    if report.max_abs_difference > rounding.difference_limit or different:
        raise GateError(
            "parity",
            f"the graph does not compute what Keras does: over {report.images} images the largest difference is "
            f"{report.max_abs_difference:.3g} (at most {rounding.difference_limit:.3g} is accepted; "
            f"{rounding.explain()}), and {different} labels differ by more than rounding",
        )
    if truth is None or not rounding.images:
        return report
    largest, typical = distances(truth, onnx_outputs)
    too_far = largest > rounding.limit or typical > rounding.typical_limit  # guard: gates-truth, gates-typical-image
    if too_far:
        raise GateError(
            "parity",
            f"the graph is further from the model than Keras is: over {rounding.images} images its probabilities "
            f"differ from a float64 evaluation by {largest:.3g} at most and {typical:.3g} in the middle one, Keras' by "
            f"{rounding.largest:.3g} and {rounding.typical:.3g}; at most {rounding.limit:.3g} and "
            f"{rounding.typical_limit:.3g} are accepted (--max-difference sets the least limit)",
        )
    return replace(report, to_truth=(largest, typical))


def measure_difference(keras_outputs: Float32Array, onnx_outputs: Float32Array, *, rounding: Rounding) -> ParityReport:
    """How far a graph's answers lie from Keras', whatever its precision. Its accuracy judges it, not these figures.

    Args:
        keras_outputs: `(N, K)` float32 probabilities.
        onnx_outputs: from the graph, in the same shape.
        rounding: of the model in float32: labels that it cannot decide are ties, whatever the difference.

    Raises:
        GateError: `parity`: another shape.
    """
    if keras_outputs.shape != onnx_outputs.shape:
        raise GateError("parity", f"Keras gives outputs {keras_outputs.shape}, ONNX Runtime {onnx_outputs.shape}")
    expected = keras_outputs.astype(np.float64)
    second, best = np.sort(expected, axis=1)[:, -2:].T
    mismatched = expected.argmax(axis=1) != onnx_outputs.argmax(axis=1)
    tied = mismatched & (best - second <= 2 * rounding.difference_limit)  # guard: gates-ties-by-rounding
    return ParityReport(
        images=len(expected),
        max_abs_difference=float(np.abs(expected - onnx_outputs).max()),
        rounding=rounding,
        label_mismatches=int(mismatched.sum()),
        label_ties=int(tied.sum()),
    )
