"""What does a float64 forward pass say that shares nothing with Keras and ONNX Runtime but the weights?"""

import numpy as np

from inferry_trainer.arrays import Float32Array, Int64Array, UInt8Array
from inferry_trainer.blocks.keras_layers import UnsupportedLayerError, read_keras_layers
from inferry_trainer.blocks.reference import FLOAT32_TOLERANCE, reference_probabilities
from inferry_trainer.errors import GateError
from inferry_trainer.evaluation.classifier import Classifier, Pixels
from inferry_trainer.gates.result import GateResult

IMAGES = 64
NAME = "third-opinion"


def sample_positions(count: int) -> Int64Array:
    """Which images to ask about: `IMAGES` of them, evenly spread, or all where there are fewer."""
    return np.unique(np.linspace(0, count - 1, min(count, IMAGES)).round()).astype(np.int64)


def check_third_opinion(
    classifier: Classifier,
    images: UInt8Array,
    *,
    keras_outputs: Float32Array,
    onnx_outputs: Float32Array,
    onnx_tolerance: float = FLOAT32_TOLERANCE,
) -> GateResult:
    """Compare Keras and the graph with the reference on a sample of images.

    Args:
        classifier: the Keras model.
        images: `(N, H, W, C)` uint8.
        keras_outputs: `(N, K)` float32.
        onnx_outputs: likewise, from the exported graph.
        onnx_tolerance: largest accepted difference of the graph's answers; infinite measures only.

    Raises:
        GateError: `third-opinion`: says which of the two differs.
    """
    if classifier.pixels is not Pixels.UNIT:
        return GateResult(NAME, reason=f"the reference takes pixels in [0, 1], the model {classifier.pixels.value}")
    chosen = sample_positions(len(images))
    try:
        reference = reference_probabilities(read_keras_layers(classifier.model), images[chosen])
    except UnsupportedLayerError as error:
        return GateResult(NAME, reason=str(error))
    except ValueError as error:
        raise GateError(NAME, f"the reference cannot compute the model: {error}") from error
    figures = {"images": float(len(chosen))}
    for who, outputs, tolerance in (
        ("keras", keras_outputs, FLOAT32_TOLERANCE),
        ("onnx", onnx_outputs, onnx_tolerance),
    ):
        difference = float(np.abs(reference - outputs[chosen]).max())
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
