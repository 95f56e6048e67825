"""The proof that an exported graph computes what the Keras model does, over the whole test set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import ParityError
from inferry_trainer.evaluate import BATCH_SIZE
from inferry_trainer.export import INPUT, OUTPUT

MAX_DIFFERENCE = 1e-5
_LEAST_SPREAD = 1e-3  # a trained network's answers differ by a thousand times as much
_ROW_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ParityReport:
    """Keras compared with the exported graph in ONNX Runtime on the CPU.

    Attributes:
        images: how many were compared.
        max_abs_difference: between two probabilities.
        limit: what it may be.
        label_mismatches: images whose most probable label differs.
        label_ties: of those, the ones whose two best probabilities lie closer together than twice
            `max_abs_difference`: no two programs need agree on them.
    """

    images: int
    max_abs_difference: float
    limit: float
    label_mismatches: int
    label_ties: int


def run_onnx(path: Path, images: UInt8Array) -> Float32Array:
    """An exported graph's answers from ONNX Runtime on the CPU, every image's.

    Args:
        path: of the graph.
        images: `(N, H, W, C)` uint8, 0-255.

    Returns:
        `(N, K)` float32.

    Raises:
        ParityError: not a valid graph, or one with another signature than the export promises.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        _check_signature(session)
        parts = [
            session.run([OUTPUT], {INPUT: images[start : start + BATCH_SIZE]})[0]
            for start in range(0, len(images), BATCH_SIZE)
        ]
    except ParityError:
        raise
    except Exception as error:  # both libraries raise their own kinds, by no common name
        raise ParityError(f"the exported graph does not run in ONNX Runtime: {error}") from error
    return np.concatenate(parts)


def compare_outputs(keras_outputs: Float32Array, onnx_outputs: Float32Array) -> ParityReport:
    """Compare both programs' answers to the same images.

    Args:
        keras_outputs: `(N, K)` float32 probabilities.
        onnx_outputs: likewise, from the exported graph.

    Raises:
        ParityError: answers that differ, that are not probabilities, or that are the same for every image.
    """
    for name, outputs in (("Keras", keras_outputs), ("ONNX Runtime", onnx_outputs)):
        _check_probabilities(name, outputs)
    if keras_outputs.shape != onnx_outputs.shape:
        raise ParityError(f"Keras gives outputs {keras_outputs.shape}, ONNX Runtime {onnx_outputs.shape}")
    report = _measure(keras_outputs, onnx_outputs)
    different = report.label_mismatches - report.label_ties
    if report.max_abs_difference > report.limit or different:
        raise ParityError(
            f"the exported graph does not compute what Keras does: over {report.images} test images the largest "
            f"difference is {report.max_abs_difference:.3g} (at most {report.limit:g} is accepted), and {different} "
            "labels differ by more than rounding; nothing was published"
        )
    return report


def _measure(keras_outputs: Float32Array, onnx_outputs: Float32Array) -> ParityReport:
    expected = keras_outputs.astype(np.float64)
    difference = float(np.abs(expected - onnx_outputs).max())
    second, best = np.sort(expected, axis=1)[:, -2:].T
    mismatched = expected.argmax(axis=1) != onnx_outputs.argmax(axis=1)
    return ParityReport(
        images=len(expected),
        max_abs_difference=difference,
        limit=MAX_DIFFERENCE,
        label_mismatches=int(mismatched.sum()),
        label_ties=int((mismatched & (best - second <= 2 * difference)).sum()),
    )


def _check_probabilities(name: str, outputs: Float32Array) -> None:
    if outputs.ndim != 2 or outputs.shape[1] < 2 or not np.isfinite(outputs).all():
        raise ParityError(f"{name}'s outputs {outputs.shape} are not finite probabilities of shape (N, K), K > 1")
    off = float(np.abs(outputs.sum(axis=1, dtype=np.float64) - 1).max())
    if off > _ROW_SUM_TOLERANCE or outputs.min() < 0:
        raise ParityError(f"{name}'s outputs are not probabilities: a row's sum is off 1 by {off:.3g}")
    spread = float(np.ptp(outputs, axis=0).max())
    if len(outputs) > 1 and spread < _LEAST_SPREAD:
        raise ParityError(
            f"{name} gives every image the same answer: over {len(outputs)} test images no probability varies by more "
            f"than {spread:.3g} (expected at least {_LEAST_SPREAD:g}); nothing was published"
        )


def _check_signature(session: ort.InferenceSession) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = [(value.name, value.type) for value in (*inputs, *outputs)]
    expected = [(INPUT, "tensor(uint8)"), (OUTPUT, "tensor(float)")]
    if found != expected:
        raise ParityError(f"the exported graph has inputs and outputs {found}; expected {expected}")
    for value in (*inputs, *outputs):
        if isinstance(value.shape[0], int):
            raise ParityError(
                f"the exported graph's {value.name!r} takes batches of {value.shape[0]} only; expected any size"
            )
