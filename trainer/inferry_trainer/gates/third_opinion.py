"""What does a float64 forward pass say that shares nothing with Keras and ONNX Runtime but the weights?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_trainer.arrays import Float32Array, Int64Array, UInt8Array
from inferry_trainer.blocks.checks import Float64Array
from inferry_trainer.blocks.keras_layers import UnsupportedLayerError, read_keras_layers
from inferry_trainer.blocks.reference import FLOAT32_TOLERANCE, reference_probabilities
from inferry_trainer.errors import GateError
from inferry_trainer.evaluation.classifier import Classifier, Pixels
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.rounding import Truth

IMAGES = 64
NAME = "third-opinion"
_FLOAT64_TOLERANCE = 1e-8  # two programs in float64 differ by some 1e-13; a larger difference is a fault, not rounding


def sample_positions(count: int) -> Int64Array:
    """Which images to ask about: `IMAGES` of them, evenly spread, or all where there are fewer."""
    return np.unique(np.linspace(0, count - 1, min(count, IMAGES)).round()).astype(np.int64)


def check_third_opinion(
    classifier: Classifier,
    images: UInt8Array,
    *,
    keras_outputs: Float32Array,
    onnx_outputs: Float32Array,
    truth: Truth | None = None,
    keras_tolerance: float = FLOAT32_TOLERANCE,
    onnx_tolerance: float = FLOAT32_TOLERANCE,
) -> GateResult:
    """Compare Keras, in float32 and in float64, and the graph with the reference on a sample of images.

    Args:
        classifier: the Keras model.
        images: `(N, H, W, C)` uint8.
        keras_outputs: `(N, K)` float32.
        onnx_outputs: of the exported graph, in the same shape.
        truth: Keras' own float64 evaluation of some images: those are asked too.
        keras_tolerance: largest accepted difference of Keras' answers.
        onnx_tolerance: of the graph's; infinite measures only.

    Raises:
        GateError: `third-opinion`: says which of them differs.
    """
    if classifier.pixels is not Pixels.UNIT:
        return GateResult(NAME, reason=f"the reference takes pixels in [0, 1], the model {classifier.pixels.value}")
    exact = Truth.none(keras_outputs) if truth is None else truth
    chosen = np.union1d(sample_positions(len(images)), exact.positions)
    try:
        reference = reference_probabilities(read_keras_layers(classifier.model), images[chosen])
    except UnsupportedLayerError as error:
        return GateResult(NAME, reason=str(error))
    except ValueError as error:
        raise GateError(NAME, f"the reference cannot compute the model: {error}") from error
    figures = {"images": float(len(chosen))}
    _check_float64(exact, reference[np.searchsorted(chosen, exact.positions)])
    opinions: list[tuple[str, NDArray[Any], float]] = [
        ("keras", keras_outputs[chosen], keras_tolerance),
        ("onnx", onnx_outputs[chosen], onnx_tolerance),
    ]
    for who, outputs, tolerance in opinions:
        difference = float(np.abs(reference - outputs).max())
        if not difference <= tolerance:
            raise GateError(
                NAME,
                f"over {len(chosen)} images the {who} model's probabilities differ from the float64 reference's by "
                f"{difference:.3g}; at most {tolerance:g} is accepted",
            )
        figures[f"{who}_max_abs_difference"] = difference
        if np.isfinite(tolerance):
            figures[f"{who}_max_abs_difference_limit"] = tolerance
    return GateResult(NAME, figures)


def _check_float64(truth: Truth, reference: Float64Array) -> None:
    difference = float(np.abs(reference - truth.probabilities).max(initial=0.0))
    if not difference <= _FLOAT64_TOLERANCE:  # guard: gates-float64-twice
        raise GateError(
            NAME,
            f"over {len(reference)} images the keras model, evaluated in float64, differs from the float64 reference "
            f"by {difference:.3g}; at most {_FLOAT64_TOLERANCE:g} is accepted: it is more than rounding",
        )
