"""Does the graph give the answers that Keras gave to a few chosen images?"""

import numpy as np

from inferry_proto.golden import GoldenSamples, GoldenSamplesError, largest_difference
from inferry_trainer.arrays import Float32Array, Int64Array, UInt8Array
from inferry_trainer.errors import GateError
from inferry_trainer.export.onnx_model import CPU, INPUT, OUTPUT, OnnxModel
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.rounding import MAX_DIFFERENCE

GOLDEN_IMAGES = 4

# float32: a CPU computes as Keras did. GPUs multiply in TF32 by default, with 10 bits of mantissa: with kernels
# and activations rounded so, MNIST's test set moved by at most 5.6e-4. Half precision has those 10 bits in sums
# too; what int8 moves depends on the image, so golden samples are chosen among those it moves less than this.
TOLERANCES = {
    "float32": {CPU: MAX_DIFFERENCE, "CUDAExecutionProvider": 1e-3, "TensorrtExecutionProvider": 1e-3},
    "float16": {CPU: 1e-2, "CUDAExecutionProvider": 2e-2, "TensorrtExecutionProvider": 2e-2},
    "int8": {CPU: 5e-2, "CUDAExecutionProvider": 1e-1, "TensorrtExecutionProvider": 1e-1},
}


def golden_tolerances(precision: str, max_difference: float) -> dict[str, float]:
    """Largest accepted differences by execution provider.

    Args:
        precision: of the graph's weights.
        max_difference: accepted of the float32 graph; no tolerance is smaller, since other processors round as much.
    """
    return {provider: max(tolerance, max_difference) for provider, tolerance in TOLERANCES[precision].items()}


def golden_positions(keras_outputs: Float32Array, onnx_outputs: Float32Array, *, tolerance: float) -> Int64Array:
    """Which images become golden samples: the least certain one of each label, of those the least certain few.

    A network is certain of most images, even one whose weights are wrong; on doubtful images two networks differ.
    Images on which the graph differs from Keras by more than half the tolerance are passed over: on another processor
    it may differ by as much again.

    Args:
        keras_outputs: `(N, K)` float32 probabilities.
        onnx_outputs: of the exported graph, in the same shape.
        tolerance: of golden samples on the CPU.

    Returns:
        At most `GOLDEN_IMAGES` positions, int64, each of another label.

    Raises:
        GateError: `golden`: no image is answered within the tolerance.
    """
    limit = tolerance / 2
    close = np.flatnonzero(np.abs(keras_outputs.astype(np.float64) - onnx_outputs).max(axis=1) <= limit)
    if not len(close):
        raise GateError("golden", f"none of {len(keras_outputs)} images is answered within {limit:g} of Keras' answer")
    chosen = keras_outputs[close]
    doubtful_first = np.argsort(chosen.max(axis=1), kind="stable")
    _, first_of_label = np.unique(chosen.argmax(axis=1)[doubtful_first], return_index=True)
    return close[doubtful_first[np.sort(first_of_label)[:GOLDEN_IMAGES]]].astype(np.int64)


def check_golden(model: OnnxModel, samples: GoldenSamples, *, tolerance: float) -> GateResult:
    """Compare the graph's answers with the recorded ones.

    Args:
        model: the graph.
        samples: images with Keras' answers.
        tolerance: largest accepted absolute difference.

    Raises:
        GateError: `golden`: it is exceeded, or the samples do not fit the model.
    """
    try:
        difference = largest_difference(samples.outputs, {OUTPUT: model.run(samples.inputs[INPUT])})
    except (GoldenSamplesError, KeyError) as error:
        raise GateError("golden", f"the golden samples do not fit the model: {error}") from error
    except Exception as error:  # ONNX Runtime raises its own kinds, by no common name
        raise GateError("golden", f"the model fails on the golden samples: {error}") from error
    if not difference <= tolerance:
        raise GateError(
            "golden",
            f"the graph's answers differ from Keras' recorded ones by {difference:.3g}; at most {tolerance:g} is "
            "accepted: this is not the model that was exported",
        )
    return GateResult(
        "golden",
        {"images": samples.count, "max_abs_difference": difference, "max_abs_difference_limit": tolerance},
    )


def make_golden_samples(images: UInt8Array, keras_outputs: Float32Array, positions: Int64Array) -> GoldenSamples:
    """The chosen images with Keras' own answers."""
    return GoldenSamples({INPUT: images[positions]}, {OUTPUT: keras_outputs[positions]})
