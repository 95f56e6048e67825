"""Whatever goes wrong between Keras and a client is refused: by a gate, by `verify`, and by the server."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inferry_proto.manifest import MANIFEST_FILE, describe_file, read_manifest, write_manifest
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ModelLoadError
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.repository import VersionFolder
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_trainer.datasets import Part
from inferry_trainer.errors import GateError
from inferry_trainer.evaluation.classifier import Classifier, make_classifier
from inferry_trainer.evaluation.evaluate import evaluate_probabilities
from inferry_trainer.export.candidate import Candidate, make_probes
from inferry_trainer.export.convert import export_classifier
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.table import GATES
from inferry_trainer.publishing.verification import Evidence, verify_version
from inferry_trainer.workflow import export as export_workflow
from inferry_trainer.workflow.export import ExportOptions, publish_candidate

layers = keras.layers
Change = Callable[[onnx.ModelProto], None]


def silent(_line: str) -> None:
    pass


def change_initializer(model: onnx.ModelProto, wanted: Callable[[Any], bool], change: Callable[[Any], Any]) -> None:
    [tensor] = [tensor for tensor in model.graph.initializer if wanted(numpy_helper.to_array(tensor))]
    changed = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))


def divide_pixels_twice(model: onnx.ModelProto) -> None:
    change_initializer(model, lambda array: array.ndim == 0 or array.size == 1, lambda scale: scale * scale)


def swap_channels(model: onnx.ModelProto) -> None:
    change_initializer(model, lambda array: array.shape == (16, 3, 3, 3), lambda kernel: kernel[:, ::-1])


def swap_labels(model: onnx.ModelProto) -> None:
    swapped = [1, 0, *range(2, 10)]
    change_initializer(model, lambda array: array.ndim == 2 and array.shape[1] == 10, lambda k: k[:, swapped])
    change_initializer(model, lambda array: array.shape == (10,), lambda bias: bias[swapped])


def keep_stale_weights(model: onnx.ModelProto) -> None:
    change_initializer(model, lambda array: array.shape == (32, 16, 3, 3), lambda kernel: kernel * np.float32(0.97))


def fix_the_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8


def answer_constantly(model: onnx.ModelProto) -> None:
    change_initializer(model, lambda array: array.ndim == 2 and array.shape[1] == 10, lambda kernel: kernel * 0)


FAULTS = [
    (divide_pixels_twice, "parity", "golden"),
    (swap_channels, "parity", "golden"),
    (swap_labels, "parity", "golden"),
    (keep_stale_weights, "parity", "golden"),
    (fix_the_batch, "signature", "signature"),
    (answer_constantly, "varied-outputs", "varied-outputs"),
]


@pytest.fixture
def version(tinted_models: Path, tmp_path: Path) -> Path:
    """A published version to spoil."""
    return Path(shutil.copytree(tinted_models / "tinted" / "1", tmp_path / "tinted" / "1"))


def plant(version: Path, change: Change) -> None:
    """Change a published graph as a broken publisher would: the manifest's checksum fits it."""
    model = onnx.load(version / "model.onnx")
    change(model)
    (version / "model.onnx").write_bytes(model.SerializeToString())
    manifest = read_manifest(version)
    assert manifest is not None
    [file] = [file for file in manifest.files if file.name == "model.onnx"]
    file.CopyFrom(describe_file(version / "model.onnx"))
    write_manifest(version, manifest)


def serve(version: Path) -> None:
    policy = BatchingPolicy(max_batch_size=32, max_request_rows=32, max_queue_size=64, max_queue_bytes=1 << 24)
    options = LoadOptions(("CPUExecutionProvider",), 1, 1, policy, ServerMetrics())
    load_version(VersionFolder("tinted", 1, version), options).batcher.close(10)


def test_a_version_without_fault_passes_and_is_served(version: Path, tinted: Candidate) -> None:
    results = verify_version(version, Evidence(tinted.classifier, tinted.test, tinted.labels))
    assert {result.gate for result in results if result.reason} == {"accuracy-drop", "scaled-jpeg"}
    assert [result.gate for result in results] == [gate.name for gate in GATES]
    serve(version)


@pytest.mark.parametrize("change", [{"color_mode": Preprocessing.GRAYSCALE}, {"height": 25}])
def test_preprocessing_that_does_not_fit_the_graph_is_refused(
    change: dict[str, Any], version: Path, tinted: Candidate
) -> None:
    manifest = read_manifest(version)
    assert manifest is not None
    manifest.preprocessing.MergeFrom(Preprocessing(**change))
    write_manifest(version, manifest)
    with pytest.raises(GateError, match="preprocessing makes pictures of") as refused:
        verify_version(version, Evidence(tinted.classifier, tinted.test, tinted.labels))
    assert refused.value.gate == "signature"
    with pytest.raises(ModelLoadError, match="preprocessing"):
        serve(version)


@pytest.mark.parametrize("name", ["tinted-float16", "tinted-int8"])
def test_variants_without_fault_pass_and_are_served(name: str, tinted_models: Path, tinted: Candidate) -> None:
    results = verify_version(tinted_models / name / "1", Evidence(tinted.classifier, tinted.test, tinted.labels))
    assert "accuracy-drop" in {result.gate for result in results}
    serve(tinted_models / name / "1")


@pytest.mark.parametrize(("change", "at_export", "_"), FAULTS)
def test_a_fault_in_the_export_is_not_published(
    change: Change, at_export: str, _: str, tinted: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_with_fault(classifier: Classifier, path: Path) -> None:
        export_classifier(classifier, path)
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())

    monkeypatch.setattr(export_workflow, "export_classifier", export_with_fault)
    for precisions in (("float32",), ("int8",), ("float16", "int8")):
        options = ExportOptions(tmp_path / "models", precisions=precisions, max_accuracy_drop=100)
        with pytest.raises(GateError, match="nothing was published") as refused:
            publish_candidate(tinted, options, say=silent)
        assert refused.value.gate == at_export
        assert not (tmp_path / "models").exists()


def resizing_network(*, antialias: bool) -> Any:
    keras.utils.set_random_seed(11)
    return keras.Sequential(
        [
            keras.Input((20, 20, 1)),
            layers.Resizing(7, 7, antialias=antialias),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def test_a_resize_that_does_not_antialias_as_the_model_does_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = resizing_network(antialias=True), resizing_network(antialias=False)
    other.set_weights(model.get_weights())
    images = make_probes((20, 20, 1))
    classifier = make_classifier(model)
    labels = classifier.predict(images).argmax(axis=1)
    spec = Preprocessing(color_mode=Preprocessing.GRAYSCALE, height=20, width=20, filter=Preprocessing.BILINEAR)
    candidate = Candidate(classifier, "resizing", ("a", "b", "c"), spec, "probes", Part(images, labels))
    monkeypatch.setattr(
        export_workflow, "export_classifier", lambda _, path: export_classifier(make_classifier(other), path)
    )
    with pytest.raises(GateError, match="the largest difference is") as refused:
        publish_candidate(candidate, ExportOptions(tmp_path / "models", max_difference=1e-3), say=silent)
    assert refused.value.gate == "parity"


@pytest.mark.parametrize(("change", "_", "in_verify"), FAULTS)
def test_a_fault_in_a_published_graph_is_found_without_data_and_not_served(
    change: Change, _: str, in_verify: str, version: Path
) -> None:
    plant(version, change)
    with pytest.raises(GateError) as refused:
        verify_version(version, Evidence())
    assert refused.value.gate == in_verify
    with pytest.raises(ModelLoadError):
        serve(version)


def test_one_changed_byte_is_found_and_not_served(version: Path) -> None:
    for name in ("model.onnx", "golden.npz", "labels.txt"):
        content = bytearray((version / name).read_bytes())
        content[len(content) // 2] ^= 1
        (version / name).write_bytes(content)
        with pytest.raises(GateError, match=rf"{name} was changed after it was published") as refused:
            verify_version(version, Evidence())
        assert refused.value.gate == "checksum"
        with pytest.raises(ModelLoadError, match=name):
            serve(version)
        content[len(content) // 2] ^= 1
        (version / name).write_bytes(content)


def test_labels_swapped_in_the_manifest_are_found(version: Path, tinted: Candidate) -> None:
    text = (version / MANIFEST_FILE).read_text()
    (version / MANIFEST_FILE).write_text(
        text.replace('"0",', '"x",', 1).replace('"1",', '"0",', 1).replace('"x"', '"1"')
    )
    with pytest.raises(
        GateError, match=r"2 of .* 10 labels are others than in labels.txt: '1', '0' where it has '0', '1'"
    ) as refused:
        verify_version(version, Evidence())
    assert refused.value.gate == "label-names"


def test_labels_in_another_order_than_the_outputs_are_not_published(tinted: Candidate, tmp_path: Path) -> None:
    assert tinted.test is not None
    labels = tinted.test.labels
    swapped = np.where(labels == 3, 8, np.where(labels == 8, 3, labels))
    candidate = replace(tinted, test=replace(tinted.test, labels=swapped))
    message = "labels look swapped: most of '3' are called '8', most of '8' are called '3'"
    with pytest.raises(GateError, match=message) as refused:
        publish_candidate(candidate, ExportOptions(tmp_path / "models"), say=silent)
    assert refused.value.gate == "labels"


def test_keras_weights_of_another_epoch_are_not_published(tinted: Candidate, tmp_path: Path) -> None:
    """Their accuracy may be the same; the loss tells them apart."""
    model = keras.models.clone_model(tinted.classifier.model)
    model.set_weights([weight * np.float32(0.97) for weight in tinted.classifier.model.get_weights()])
    assert tinted.test is not None
    figures = evaluate_probabilities(tinted.classifier.predict(tinted.test.images), tinted.test.labels)
    recorded = replace(
        tinted,
        classifier=make_classifier(model),
        recorded_accuracy=figures.accuracy,
        recorded_loss=figures.loss,
    )
    with pytest.raises(GateError, match="model, images and figures do not belong together") as refused:
        publish_candidate(recorded, ExportOptions(tmp_path / "models"), say=silent)
    assert refused.value.gate == "recorded-figures"


def test_int8_calibrated_on_noise_is_not_published(tinted: Candidate, tmp_path: Path) -> None:
    assert tinted.calibration is not None
    noise = np.random.default_rng(0).integers(0, 256, tinted.calibration.shape, dtype=np.uint8) // 16
    candidate = replace(tinted, calibration=noise)
    with pytest.raises(GateError, match=r"percentage points are lost; at most 0.6 are accepted") as refused:
        publish_candidate(candidate, ExportOptions(tmp_path, precisions=["int8"], max_accuracy_drop=0.6), say=silent)
    assert refused.value.gate == "accuracy-drop"


def test_a_version_that_other_images_contradict_fails(version: Path, tinted: Candidate) -> None:
    """The images are those it was published with; the figures are not."""
    manifest = read_manifest(version)
    assert manifest is not None
    manifest.evaluation.metrics["test_accuracy"] = 0.9999
    write_manifest(version, manifest)
    with pytest.raises(GateError, match=r"the manifest recorded a test accuracy of 0\.9999") as refused:
        verify_version(version, Evidence(test=tinted.test, labels=tinted.labels))
    assert refused.value.gate == "recorded-figures"


def test_gates_that_do_not_apply_say_why() -> None:
    assert str(GateResult("parity", reason="no model")) == "parity: not applicable: no model"
