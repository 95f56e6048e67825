"""Repeating on a published version what it had to pass: all of it, as far as evidence is there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferry_proto.golden import GoldenSamplesError, load_golden_samples
from inferry_proto.manifest import ManifestError, verify_files
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_proto.preprocessing import channel_count
from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.blocks.reference import FLOAT32_TOLERANCE
from inferry_trainer.datasets import Part
from inferry_trainer.errors import GateError
from inferry_trainer.evaluation.classifier import Classifier
from inferry_trainer.evaluation.evaluate import Evaluation, evaluate_probabilities
from inferry_trainer.export.candidate import make_probes
from inferry_trainer.export.onnx_model import CPU, INPUT, OnnxModel, available_cores, load_onnx_model
from inferry_trainer.gates.accuracy import check_accuracy_drop, check_labels, check_recorded
from inferry_trainer.gates.batches import check_batches
from inferry_trainer.gates.golden import check_golden
from inferry_trainer.gates.graph import check_graph
from inferry_trainer.gates.latency import measure_latency
from inferry_trainer.gates.outputs import MAX_DIFFERENCE, check_varied, compare_outputs
from inferry_trainer.gates.proof import digest_of
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.third_opinion import check_third_opinion
from inferry_trainer.publishing.catalog import manifest_of
from inferry_trainer.publishing.release import LABELS_FILE, MODEL_FILE, PRECISIONS


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a version can be held against.

    Attributes:
        classifier: the Keras model it was exported from; None where it is not at hand.
        test: labelled images; None likewise.
        labels: their classes' names, in order; empty without images.
        why_not: why there are no images.
    """

    classifier: Classifier | None = None
    test: Part | None = None
    labels: tuple[str, ...] = ()
    why_not: str = "no test images: name them with --run, --data or --data-dir"


def verify_version(version: Path, evidence: Evidence) -> list[GateResult]:
    """Repeat a version's gates.

    Args:
        version: a published version's folder.
        evidence: what it is held against.

    Returns:
        What was measured, gate by gate; those that could not be repeated say why.

    Raises:
        GateError: the first gate that it fails.
    """
    manifest = manifest_of(version)
    results = [GateResult("manifest", {"gates_recorded": len(manifest.gates)}), _check_files(version, manifest)]
    results.append(check_graph(version / MODEL_FILE))
    model = load_onnx_model(version / MODEL_FILE)
    results.append(_check_signature(model, manifest))
    results.append(_check_label_names(version, manifest, evidence))
    golden = version / manifest.golden_samples.file
    results.append(check_golden(model, golden, tolerance=_golden_tolerance(manifest)))
    images = evidence.test.images if evidence.test is not None else _own_images(golden, model)
    model.check_images(images)
    outputs = model.predict(images)
    results.append(check_varied(outputs, who="ONNX Runtime", precision=manifest.precision))
    results.append(check_batches(model.run, images, precision=manifest.precision))
    if evidence.test is None:
        results.append(GateResult("recorded-figures", reason=evidence.why_not))
    else:
        evaluation = evaluate_probabilities(outputs, evidence.test.labels)
        results += _check_accuracy(manifest, evidence.test, evaluation)
    results += _compare_with_keras(manifest, evidence, images, outputs)
    results.append(measure_latency(model.run, images[:32], threads=available_cores()).to_result())
    return results


def _check_files(version: Path, manifest: ModelManifest) -> GateResult:
    try:
        verify_files(version, manifest)
    except (ManifestError, OSError) as error:
        raise GateError("checksum", str(error)) from error
    listed = {file.name for file in manifest.files}
    missing = {MODEL_FILE, manifest.golden_samples.file} - listed
    if missing:
        raise GateError("checksum", f"the manifest lists no checksum for {', '.join(sorted(missing)) or 'any file'}")
    return GateResult("checksum", {"files": len(listed)})


def _check_signature(model: OnnxModel, manifest: ModelManifest) -> GateResult:
    recorded = [[*spec.shape] for spec in (*manifest.signature.inputs, *manifest.signature.outputs)]
    found = [[-1, *model.image_shape], [-1, model.classes]]
    if recorded != found:
        raise GateError("signature", f"the manifest says {recorded}, the graph has {found}")
    made = manifest.preprocessing
    pictures = (made.height, made.width, channel_count(made))
    if pictures != model.image_shape:
        raise GateError(
            "signature",
            f"the manifest's preprocessing makes pictures of {pictures}, the graph takes {model.image_shape}",
        )
    if manifest.precision not in PRECISIONS:
        raise GateError(
            "signature", f"the manifest's precision is {manifest.precision!r}; expected one of {PRECISIONS}"
        )
    return GateResult("signature", {"K": model.classes})


def _check_label_names(version: Path, manifest: ModelManifest, evidence: Evidence) -> GateResult:
    """The manifest itself has no checksum, but the file of labels beside it has one in it."""
    labels = tuple(manifest.labels)
    if LABELS_FILE in {file.name for file in manifest.files}:
        published = tuple((version / LABELS_FILE).read_text(encoding="utf-8").splitlines())
        if labels != published:
            raise GateError("label-names", f"the manifest's labels are {labels}; {LABELS_FILE} has {published}")
    if evidence.labels and labels != evidence.labels:
        raise GateError("label-names", f"the manifest's labels are {labels}; the data's are {evidence.labels}")
    classes = manifest.signature.outputs[0].shape[-1]
    if len(labels) != classes:
        raise GateError("label-names", f"there are {len(labels)} labels for {classes} probabilities an image")
    return GateResult("label-names", {"classes": classes})


def _golden_tolerance(manifest: ModelManifest) -> float:
    if CPU not in manifest.golden_samples.tolerances:
        raise GateError("golden", f"the manifest states no tolerance for {CPU}")
    return manifest.golden_samples.tolerances[CPU]


def _own_images(golden: Path, model: OnnxModel) -> UInt8Array:
    """The version's golden images and made-up ones: enough to see that answers vary and agree in every batch."""
    try:
        samples: UInt8Array = load_golden_samples(golden).inputs[INPUT]
    except GoldenSamplesError as error:
        raise GateError("golden", str(error)) from error
    return np.concatenate([samples, make_probes(model.image_shape)])


def _check_accuracy(manifest: ModelManifest, test: Part, evaluation: Evaluation) -> list[GateResult]:
    results = [check_labels(evaluation.confusion, tuple(manifest.labels))]
    recorded = manifest.evaluation
    if recorded.test_sha256 and recorded.test_sha256 != digest_of(test):
        figures = f"accuracy {evaluation.accuracy:.4f} over {evaluation.images} images"
        return [
            *results,
            GateResult("recorded-figures", reason=f"these are not the images it was published with; {figures}"),
        ]
    if "test_accuracy" not in recorded.metrics:
        reason = f"it was published unverified; accuracy {evaluation.accuracy:.4f} over {evaluation.images} images"
        return [*results, GateResult("recorded-figures", reason=reason)]
    metrics = recorded.metrics
    loss = metrics["test_loss"] if "test_loss" in metrics and manifest.precision == "float32" else None
    results.append(check_recorded(evaluation, accuracy=metrics["test_accuracy"], loss=loss, where="the manifest"))
    drop = next((gate for gate in manifest.gates if gate.name == "accuracy-drop"), None)
    if drop is not None and "points_limit" in drop.figures and "float32_test_accuracy" in metrics:
        results.append(
            check_accuracy_drop(
                evaluation,
                float32_accuracy=metrics["float32_test_accuracy"],
                precision=manifest.precision,
                limit=drop.figures["points_limit"],
            )
        )
    return results


def _compare_with_keras(
    manifest: ModelManifest, evidence: Evidence, images: UInt8Array, outputs: Float32Array
) -> list[GateResult]:
    if evidence.classifier is None:
        reason = "the Keras model is not at hand: name its run with --run, or its file with --keras"
        return [GateResult("parity", reason=reason), GateResult("third-opinion", reason=reason)]
    full = manifest.precision == "float32"
    keras_outputs = evidence.classifier.predict(images)
    limit = max(MAX_DIFFERENCE, manifest.parity.max_abs_difference_limit)
    parity = compare_outputs(keras_outputs, outputs, limit=limit if full else np.inf)
    opinion = check_third_opinion(
        evidence.classifier,
        images,
        keras_outputs=keras_outputs,
        onnx_outputs=outputs,
        onnx_tolerance=max(FLOAT32_TOLERANCE, limit) if full else np.inf,
    )
    return [parity.to_result(), opinion]
