"""What goes into a published version: graph, golden samples, labels, and a manifest that says what was proven."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from inferry_proto import manifest_pb2
from inferry_proto.golden import save_golden_samples
from inferry_proto.manifest import FORMAT_VERSION, describe_file, write_manifest
from inferry_proto.variants import FLOAT32
from inferry_trainer.datasets import Part
from inferry_trainer.errors import ExportError
from inferry_trainer.evaluation.evaluate import Evaluation
from inferry_trainer.export.candidate import Candidate
from inferry_trainer.export.half_precision import to_float16
from inferry_trainer.export.onnx_model import CPU, INPUT, OUTPUT
from inferry_trainer.export.quantize import quantize_int8
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.subject import Subject, digest_of
from inferry_trainer.gates.table import LABELS_FILE, MODEL_FILE, judge

GOLDEN_FILE = "golden.npz"


@dataclass(frozen=True, eq=False)
class Release:
    """What was measured of a version before it was published.

    Attributes:
        subject: the graph and what it was held against.
        manifest: as it was written.
        model_bytes: size of the graph's file.
    """

    subject: Subject
    manifest: manifest_pb2.ModelManifest
    model_bytes: int


def write_release(
    folder: Path, candidate: Candidate, *, base: str, precision: str, float32: Subject, gates: list[GateResult]
) -> Release:
    """Make a variant of a candidate, prove it, and write the files of a version.

    Args:
        folder: an empty folder.
        candidate: the model and what it is judged by.
        base: the float32 model's name in the repository; that of a variant follows from it (`variant_name`).
        precision: `float32`, `float16` or `int8`.
        float32: the candidate's float32 graph, which has passed its gates.
        gates: those it passed.

    Raises:
        ExportError: the graph has no variant of this precision.
        GateError: the first gate that refuses it.
    """
    quantization = _write_graph(folder / MODEL_FILE, candidate, precision, float32.graph)
    subject = float32
    if precision != FLOAT32:
        subject = replace(float32, graph=folder / MODEL_FILE, precision=precision, float32=float32)
        gates = judge(subject)
    save_golden_samples(folder / GOLDEN_FILE, subject.golden)
    (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in candidate.labels), encoding="utf-8")
    manifest = _manifest(folder, candidate, subject, gates, model_name=variant_name(base, precision))
    if precision != FLOAT32:
        manifest.variant_of.model_name = base
        manifest.variant_of.model_sha256 = describe_file(float32.graph).sha256
    if quantization is not None:
        manifest.quantization.CopyFrom(quantization)
    write_manifest(folder, manifest)
    return Release(subject, manifest, (folder / MODEL_FILE).stat().st_size)


def variant_name(base: str, precision: str) -> str:
    """The name of the model that a variant is published as: `mnist-int8`; float32 is the model itself."""
    return base if precision == FLOAT32 else f"{base}-{precision}"


def _write_graph(
    path: Path, candidate: Candidate, precision: str, float32_graph: Path
) -> manifest_pb2.Quantization | None:
    if precision == FLOAT32:
        shutil.copyfile(float32_graph, path)
        return None
    if precision == "float16":
        path.write_bytes(to_float16(onnx.load(float32_graph)).SerializeToString())
        return None
    if candidate.calibration is None:
        raise ExportError(
            "int8 needs training images to calibrate with, and there are none: name a folder of them with --calibration"
        )
    quantized = quantize_int8(float32_graph, candidate.calibration)
    path.write_bytes(quantized.model.SerializeToString())
    return quantized.quantization


def _manifest(
    folder: Path, candidate: Candidate, subject: Subject, gates: list[GateResult], *, model_name: str
) -> manifest_pb2.ModelManifest:
    parity, precision = subject.parity, subject.precision
    *image_shape, classes = *candidate.classifier.image_shape, candidate.classifier.classes
    manifest = manifest_pb2.ModelManifest(
        format_version=FORMAT_VERSION,
        model_name=model_name,
        precision=precision,
        signature=manifest_pb2.Signature(
            inputs=[manifest_pb2.TensorSpec(name=INPUT, datatype="UINT8", shape=[-1, *image_shape])],
            outputs=[manifest_pb2.TensorSpec(name=OUTPUT, datatype="FP32", shape=[-1, classes])],
        ),
        labels=candidate.labels,
        preprocessing=candidate.preprocessing,
        files=[describe_file(folder / name) for name in (MODEL_FILE, GOLDEN_FILE, LABELS_FILE)],
        golden_samples=manifest_pb2.GoldenSamples(file=GOLDEN_FILE, tolerances=dict(subject.golden_tolerances)),
        parity=manifest_pb2.Parity(
            images=parity.images,
            max_abs_difference=parity.max_abs_difference,
            max_abs_difference_limit=parity.rounding.difference_limit if subject.is_full_precision else 0,
            label_mismatches=parity.label_mismatches,
            label_ties=parity.label_ties,
        ),
        provenance=candidate.provenance,
        gates=[gate.to_manifest() for gate in gates],
        latency=subject.latency.to_manifest(CPU),
        unverified=candidate.test is None,
    )
    if candidate.test is not None and subject.evaluation is not None and subject.keras_evaluation is not None:
        manifest.evaluation.CopyFrom(
            _evaluation(candidate, candidate.test, subject.evaluation, subject.keras_evaluation)
        )
        full = subject.float32 or subject
        if full.evaluation is not None:
            manifest.evaluation.metrics["float32_test_accuracy"] = full.evaluation.accuracy
    return manifest


def _evaluation(candidate: Candidate, test: Part, evaluation: Evaluation, keras: Evaluation) -> manifest_pb2.Evaluation:
    return manifest_pb2.Evaluation(
        dataset=candidate.dataset,
        test_images=len(test),
        metrics={
            "test_accuracy": evaluation.accuracy,
            "test_loss": evaluation.loss,
            "keras_test_accuracy": keras.accuracy,
        },
        test_sha256=digest_of(test),
        classes=[
            manifest_pb2.ClassAccuracy(images=int(row.sum()), correct=int(row[index]))
            for index, row in enumerate(evaluation.confusion)
        ],
    )
