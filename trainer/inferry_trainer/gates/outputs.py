"""Are the answers probabilities, do they depend on the picture, and are they Keras' own?"""

from dataclasses import dataclass

import numpy as np

from inferry_trainer.arrays import Float32Array
from inferry_trainer.errors import GateError
from inferry_trainer.gates.result import GateResult

MAX_DIFFERENCE = 1e-5
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
        limit: what it may be; infinite for reduced precision, which its accuracy judges.
        label_mismatches: images whose most probable label differs.
        label_ties: of those, the ones whose two best probabilities lie closer together than twice
            `max_abs_difference`: no two programs need agree on them.
    """

    images: int
    max_abs_difference: float
    limit: float
    label_mismatches: int
    label_ties: int

    def to_result(self) -> GateResult:
        """As a gate that was passed."""
        figures = {name: float(value) for name, value in vars(self).items() if np.isfinite(value) and name != "limit"}
        limit = {"max_abs_difference_limit": self.limit} if np.isfinite(self.limit) else {}
        return GateResult("parity", figures | limit)


def compare_outputs(
    keras_outputs: Float32Array, onnx_outputs: Float32Array, *, limit: float = MAX_DIFFERENCE
) -> ParityReport:
    """Compare both programs' answers to the same images.

    Args:
        keras_outputs: `(N, K)` float32 probabilities.
        onnx_outputs: likewise, from the exported graph.
        limit: the largest difference accepted; infinite measures only.

    Raises:
        GateError: `parity`: answers that differ by more, or labels that differ by more than rounding.
    """
    if keras_outputs.shape != onnx_outputs.shape:
        raise GateError("parity", f"Keras gives outputs {keras_outputs.shape}, ONNX Runtime {onnx_outputs.shape}")
    report = _measure(keras_outputs, onnx_outputs, limit)
    different = report.label_mismatches - report.label_ties
    if report.max_abs_difference > limit or (different and np.isfinite(limit)):
        raise GateError(
            "parity",
            f"the graph does not compute what Keras does: over {report.images} images the largest difference is "
            f"{report.max_abs_difference:.3g} (at most {limit:g} is accepted), and {different} labels differ by more "
            "than rounding",
        )
    return report


def _measure(keras_outputs: Float32Array, onnx_outputs: Float32Array, limit: float) -> ParityReport:
    expected = keras_outputs.astype(np.float64)
    difference = float(np.abs(expected - onnx_outputs).max())
    second, best = np.sort(expected, axis=1)[:, -2:].T
    mismatched = expected.argmax(axis=1) != onnx_outputs.argmax(axis=1)
    return ParityReport(
        images=len(expected),
        max_abs_difference=difference,
        limit=limit,
        label_mismatches=int(mismatched.sum()),
        label_ties=int((mismatched & (best - second <= 2 * difference)).sum()),
    )
