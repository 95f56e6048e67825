"""What goes into a published version: graph, golden samples, and a manifest that says what was proven."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferry_proto import manifest_pb2
from inferry_proto.golden import GoldenSamples, save_golden_samples
from inferry_proto.manifest import FORMAT_VERSION, describe_file, write_manifest
from inferry_trainer.arrays import Float32Array, Int64Array, UInt8Array
from inferry_trainer.description import RunDescription, timestamp
from inferry_trainer.environment import library_versions
from inferry_trainer.errors import ParityError
from inferry_trainer.evaluate import evaluate_probabilities, predict_probabilities
from inferry_trainer.export import INPUT, OUTPUT, export_onnx
from inferry_trainer.run_folder import FinishedRun
from inferry_trainer.verify import MAX_DIFFERENCE, ParityReport, compare_outputs, run_onnx

MODEL_FILE, GOLDEN_FILE = "model.onnx", "golden.npz"
GOLDEN_IMAGES = 4
_CONVERTERS = ("tf2onnx", "onnx", "onnxruntime-gpu", "onnxruntime")

# The CPU computes in float32 as Keras did. GPUs multiply in TF32 by default, with 10 bits of mantissa:
# with kernels and activations rounded so, MNIST's test set moved by at most 5.6e-4.
GOLDEN_TOLERANCES = {
    "CPUExecutionProvider": MAX_DIFFERENCE,
    "CUDAExecutionProvider": 1e-3,
    "TensorrtExecutionProvider": 1e-3,
}


@dataclass(frozen=True)
class Release:
    """What was measured of a version before it was published.

    Attributes:
        parity: Keras against the exported graph.
        keras_accuracy: fraction of the test images; of 1.
        onnx_accuracy: likewise, of the exported graph.
        model_bytes: size of the graph's file.
    """

    parity: ParityReport
    keras_accuracy: float
    onnx_accuracy: float
    model_bytes: int


def write_release(folder: Path, run: FinishedRun, *, model_name: str) -> Release:
    """Export a run's model, prove the export, and write the files of a version.

    Args:
        folder: an empty folder.
        run: from `read_run_folder`.
        model_name: as in the repository.

    Raises:
        ExportError: the model cannot be converted.
        ParityError: the graph is not the model, or the model is not the one that was evaluated.
    """
    export_onnx(run.model, folder / MODEL_FILE)
    keras_outputs = predict_probabilities(run.model, run.test.images)
    onnx_outputs = run_onnx(folder / MODEL_FILE, run.test.images)
    parity = compare_outputs(keras_outputs, onnx_outputs)
    if len(run.description.labels) != keras_outputs.shape[1]:
        raise ParityError(
            f"the model gives {keras_outputs.shape[1]} probabilities an image; the run has "
            f"{len(run.description.labels)} labels"
        )
    release = Release(
        parity=parity,
        keras_accuracy=evaluate_probabilities(keras_outputs, run.test.labels).accuracy,
        onnx_accuracy=evaluate_probabilities(onnx_outputs, run.test.labels).accuracy,
        model_bytes=(folder / MODEL_FILE).stat().st_size,
    )
    _check_accuracy(run, release.keras_accuracy)
    _write_golden_samples(folder / GOLDEN_FILE, run.test.images, keras_outputs)
    write_manifest(folder, _manifest(folder, run.description, release, model_name=model_name))
    return release


def _check_accuracy(run: FinishedRun, accuracy: float) -> None:
    """One image may change sides between two machines; more mean that another model was measured."""
    if abs(accuracy - run.test_accuracy) * len(run.test) > 1.5:
        raise ParityError(
            f"the run recorded a test accuracy of {run.test_accuracy:.4f}, its model has {accuracy:.4f} on the "
            "held-out images: model, images and figures are not of the same run; nothing was published"
        )


def _write_golden_samples(path: Path, images: UInt8Array, keras_outputs: Float32Array) -> None:
    chosen = golden_positions(keras_outputs)
    save_golden_samples(path, GoldenSamples({INPUT: images[chosen]}, {OUTPUT: keras_outputs[chosen]}))


def golden_positions(outputs: Float32Array) -> Int64Array:
    """Which images become golden samples: the least certain one of each label, of those the least certain few.

    A network is certain of most images whatever was done to it; doubtful ones tell two apart.

    Args:
        outputs: `(N, K)` float32 probabilities.

    Returns:
        At most `GOLDEN_IMAGES` positions, int64, each of another label.
    """
    doubtful_first = np.argsort(outputs.max(axis=1), kind="stable")
    _, first_of_label = np.unique(outputs.argmax(axis=1)[doubtful_first], return_index=True)
    return doubtful_first[np.sort(first_of_label)[:GOLDEN_IMAGES]].astype(np.int64)


def _manifest(folder: Path, run: RunDescription, release: Release, *, model_name: str) -> manifest_pb2.ModelManifest:
    parity = release.parity
    height, width = run.preprocessing.height, run.preprocessing.width
    channels = 1 if run.preprocessing.color_mode == manifest_pb2.Preprocessing.GRAYSCALE else 3
    return manifest_pb2.ModelManifest(
        format_version=FORMAT_VERSION,
        model_name=model_name,
        precision="float32",
        signature=manifest_pb2.Signature(
            inputs=[manifest_pb2.TensorSpec(name=INPUT, datatype="UINT8", shape=[-1, height, width, channels])],
            outputs=[manifest_pb2.TensorSpec(name=OUTPUT, datatype="FP32", shape=[-1, len(run.labels)])],
        ),
        labels=run.labels,
        preprocessing=run.preprocessing,
        files=[describe_file(folder / MODEL_FILE), describe_file(folder / GOLDEN_FILE)],
        golden_samples=manifest_pb2.GoldenSamples(file=GOLDEN_FILE, tolerances=GOLDEN_TOLERANCES),
        evaluation=manifest_pb2.Evaluation(
            dataset=run.config.dataset,
            test_images=parity.images,
            metrics={"test_accuracy": release.onnx_accuracy, "keras_test_accuracy": release.keras_accuracy},
        ),
        parity=manifest_pb2.Parity(
            images=parity.images,
            max_abs_difference=parity.max_abs_difference,
            max_abs_difference_limit=parity.limit,
            label_mismatches=parity.label_mismatches,
            label_ties=parity.label_ties,
        ),
        provenance=_provenance(run),
    )


def _provenance(run: RunDescription) -> manifest_pb2.Provenance:
    """Where the weights came from, and with what they were converted."""
    converters = {name: version for name, version in library_versions().items() if name in _CONVERTERS}
    return manifest_pb2.Provenance(
        created_at=timestamp(),
        dataset=run.config.dataset,
        dataset_sha256=run.dataset_sha256,
        train_images=run.train_images,
        validation_images=run.validation_images,
        seed=run.config.seed,
        config={name: str(value) for name, value in vars(run.config).items()},
        library_versions=dict(run.library_versions) | converters,
        git_revision=run.git_revision,
    )
