"""Everything an exported graph has to show before it is published: the gates, one after the other."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferry_trainer.arrays import Float32Array, Int64Array
from inferry_trainer.blocks.reference import FLOAT32_TOLERANCE
from inferry_trainer.datasets import Part
from inferry_trainer.evaluation.evaluate import Evaluation, evaluate_probabilities
from inferry_trainer.export.candidate import Candidate
from inferry_trainer.export.onnx_model import CPU, available_cores, load_onnx_model
from inferry_trainer.gates.accuracy import MAX_ACCURACY_DROP, check_accuracy_drop, check_labels, check_recorded
from inferry_trainer.gates.batches import check_batches
from inferry_trainer.gates.golden import golden_positions, golden_tolerances
from inferry_trainer.gates.graph import check_graph
from inferry_trainer.gates.latency import LatencyCurve, measure_latency
from inferry_trainer.gates.outputs import MAX_DIFFERENCE, ParityReport, check_varied, compare_outputs
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.third_opinion import check_third_opinion


@dataclass(frozen=True)
class Limits:
    """What is accepted of a graph.

    Attributes:
        accuracy_drop: percentage points of test accuracy that reduced precision may cost.
        difference: between a probability of Keras' and one of the float32 graph's.
    """

    accuracy_drop: float = MAX_ACCURACY_DROP
    difference: float = MAX_DIFFERENCE


@dataclass(frozen=True, eq=False)
class FullPrecision:
    """What a candidate is worth before any precision is given up.

    Attributes:
        keras: of Keras' answers.
        float32: of the float32 graph's.
    """

    keras: Evaluation
    float32: Evaluation


@dataclass(frozen=True, eq=False)
class Baseline:
    """What variants of a candidate are compared with.

    Attributes:
        keras_outputs: `(N, K)` float32, Keras' answers to the candidate's images.
        evaluation: what full precision is worth; None without test images.
    """

    keras_outputs: Float32Array
    evaluation: FullPrecision | None


@dataclass(frozen=True, eq=False)
class Proof:
    """What was shown of a graph.

    Attributes:
        gates: in the order in which they were passed.
        parity: Keras against the graph.
        evaluation: of the graph's answers; None without test images.
        latency: of batches on this machine's CPU.
        golden: positions of the images that become golden samples.
    """

    gates: tuple[GateResult, ...]
    parity: ParityReport
    evaluation: Evaluation | None
    latency: LatencyCurve
    golden: Int64Array


def take_baseline(candidate: Candidate, float32_graph: Path) -> Baseline:
    """Ask Keras and the float32 graph about every image of a candidate.

    Raises:
        GateError: `signature`: the graph does not run.
    """
    keras_outputs = candidate.classifier.predict(candidate.images)
    if candidate.test is None:
        return Baseline(keras_outputs, None)
    float32_outputs = load_onnx_model(float32_graph).predict(candidate.images)
    labels = candidate.test.labels
    evaluation = FullPrecision(
        evaluate_probabilities(keras_outputs, labels), evaluate_probabilities(float32_outputs, labels)
    )
    return Baseline(keras_outputs, evaluation)


def prove(candidate: Candidate, graph: Path, baseline: Baseline, *, precision: str, limits: Limits) -> Proof:
    """Pass a graph through every gate.

    Args:
        candidate: whose graph it is.
        graph: the exported file.
        baseline: of the same candidate.
        precision: of the graph's weights.
        limits: what is accepted.

    Raises:
        GateError: the first gate that refuses it.
    """
    full = precision == "float32"
    gates = [check_graph(graph)]
    model = load_onnx_model(graph)
    height, width, channels = model.image_shape
    gates.append(GateResult("signature", {"height": height, "width": width, "channels": channels, "K": model.classes}))
    outputs = model.predict(candidate.images)
    check_varied(baseline.keras_outputs, who="Keras")
    gates.append(check_varied(outputs, who="ONNX Runtime", precision=precision))
    parity = compare_outputs(baseline.keras_outputs, outputs, limit=limits.difference if full else np.inf)
    gates.append(parity.to_result())
    gates.append(
        check_third_opinion(
            candidate.classifier,
            candidate.images,
            keras_outputs=baseline.keras_outputs,
            onnx_outputs=outputs,
            onnx_tolerance=max(FLOAT32_TOLERANCE, limits.difference) if full else np.inf,
        )
    )
    evaluation = None
    if candidate.test is not None and baseline.evaluation is not None:
        evaluation = evaluate_probabilities(outputs, candidate.test.labels)
        gates += _accuracy_gates(candidate, baseline.evaluation, evaluation, precision, limits.accuracy_drop)
    else:
        gates.append(GateResult("recorded-figures", reason="no test images: published unverified"))
    gates.append(check_batches(model.run, candidate.images, precision=precision))
    golden = golden_positions(
        baseline.keras_outputs, outputs, tolerance=golden_tolerances(precision, limits.difference)[CPU]
    )
    latency = measure_latency(model.run, candidate.images[:32], threads=available_cores())
    gates.append(latency.to_result())
    return Proof(tuple(gates), parity, evaluation, latency, golden)


def _accuracy_gates(
    candidate: Candidate, full: FullPrecision, evaluation: Evaluation, precision: str, max_accuracy_drop: float
) -> list[GateResult]:
    gates = []
    if candidate.recorded_accuracy is None:
        gates.append(GateResult("recorded-figures", reason="nothing was recorded when the model was trained"))
    else:
        gates.append(
            check_recorded(
                full.keras,
                accuracy=candidate.recorded_accuracy,
                loss=candidate.recorded_loss,
                where="the run",
            )
        )
    gates.append(check_labels(evaluation.confusion, candidate.labels))
    if precision == "float32":
        gates.append(GateResult("accuracy-drop", reason="float32 is what the others are compared with"))
    else:
        gates.append(
            check_accuracy_drop(
                evaluation,
                float32_accuracy=full.float32.accuracy,
                precision=precision,
                limit=max_accuracy_drop,
            )
        )
    return gates


def digest_of(part: Part) -> str:
    """sha256 over every image with its label, in whatever order they come; lower-case hexadecimal."""
    each = sorted(
        hashlib.sha256(f"{image.shape} {label}\n".encode() + np.ascontiguousarray(image).tobytes()).digest()
        for image, label in zip(part.images, part.labels.tolist(), strict=True)
    )
    return hashlib.sha256(b"".join(each)).hexdigest()
