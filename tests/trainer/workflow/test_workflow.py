import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import pytest

from inferry_proto.golden import largest_difference, load_golden_samples
from inferry_proto.manifest import read_manifest, verify_files
from inferry_proto.signing import verify_settings
from inferry_proto.version_labels import read_labels_and_traffic, write_version_labels
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets.digits import load_digits
from inferry_trainer.errors import ConfigError, GateError, PublishError, RunFolderError
from inferry_trainer.gates.golden import GOLDEN_IMAGES, golden_positions
from inferry_trainer.publishing.catalog import versions_of
from inferry_trainer.publishing.evidence import EvidenceOptions
from inferry_trainer.publishing.publish import publish_version
from inferry_trainer.publishing.signatures import check_signature, sign_path
from inferry_trainer.training.run_folder import read_run_folder
from inferry_trainer.workflow import Say
from inferry_trainer.workflow.export import ExportOptions, export_run
from inferry_trainer.workflow.run import train_run
from inferry_trainer.workflow.verify import verify_path
from testkit.signing_keys import make_keys

CONFIG = RunConfig("digits", epochs=1, batch_size=32, validation_images=180)


def silent(_line: str) -> None:
    pass


def publish(run: Path, repository: Path, model_name: str | None = None, *, say: Say = silent) -> Path:
    [version] = export_run(run, ExportOptions(repository, model_name), say=say)
    return version


@pytest.fixture(scope="module")
def version(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(digits_run, tmp_path_factory.mktemp("models"), None, say=silent)


@pytest.fixture
def own_run(digits_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def test_a_run_folder_holds_what_it_says(digits_run: Path) -> None:
    assert {path.name for path in digits_run.iterdir()} == {
        "model.keras",
        "history.csv",
        "metrics.json",
        "config.json",
        "heldout.npz",
        "calibration.npz",
        "report.html",
        "MODEL_CARD.md",
        "checkpoint",
        "tensorboard",
    }
    metrics = json.loads((digits_run / "metrics.json").read_text())
    assert metrics["test_images"] == 360
    assert metrics["test_accuracy"] == metrics["test_correct"] / 360 > 0.8
    assert metrics["parameters"] == 3_274_634
    with (digits_run / "history.csv").open() as file:
        [row] = csv.DictReader(file)
    assert float(row["val_accuracy"]) == metrics["validation_accuracy"]


def test_the_held_out_images_are_the_test_set_and_give_the_accuracy_recorded(digits_run: Path) -> None:
    with np.load(digits_run / "heldout.npz") as file:
        images, labels = file["images"], file["labels"]
    test = load_digits(validation_images=180, seed=1).test
    assert images.dtype == np.uint8
    assert np.array_equal(images, test.prepare().images)
    assert np.array_equal(labels, test.labels)
    model = keras.saving.load_model(digits_run / "model.keras")
    correct = model.predict(images.astype(np.float32) / 255, verbose=0).argmax(axis=1) == labels
    assert json.loads((digits_run / "metrics.json").read_text())["test_accuracy"] == correct.mean()


def test_the_description_reads_back(digits_run: Path) -> None:
    description = read_run_folder(digits_run).description
    assert description.config == CONFIG
    assert (description.train_images, description.validation_images, description.test_images) == (1257, 180, 360)
    assert description.dataset_sha256 == load_digits(validation_images=180, seed=1).sha256
    assert description.library_versions["keras"] == keras.__version__
    assert type(description).from_json(description.to_json()) == description


def test_a_published_version_has_a_whole_and_true_manifest(version: Path, digits_run: Path) -> None:
    manifest = read_manifest(version)
    assert manifest is not None
    verify_files(version, manifest)
    assert {file.name for file in manifest.files} == {"model.onnx", "golden.npz", "labels.txt"}
    files = {"model.onnx", "golden.npz", "labels.txt", "manifest.json", "bom.cdx.json"}
    assert {path.name for path in version.iterdir()} == files
    made_with = json.loads((version / "bom.cdx.json").read_text())["formulation"][0]["components"]
    assert f"pkg:pypi/keras@{keras.__version__}" in {part.get("purl") for part in made_with}
    assert [*manifest.labels] == list("0123456789")
    assert (manifest.model_name, manifest.precision) == ("digits", "float32")
    assert [(i.name, i.datatype, [*i.shape]) for i in manifest.signature.inputs] == [
        ("images", "UINT8", [-1, 28, 28, 1])
    ]
    assert [(o.name, o.datatype, [*o.shape]) for o in manifest.signature.outputs] == [
        ("probabilities", "FP32", [-1, 10])
    ]
    assert manifest.evaluation.test_images == manifest.parity.images == 360
    metrics = json.loads((digits_run / "metrics.json").read_text())
    assert manifest.evaluation.metrics["test_accuracy"] == metrics["test_accuracy"]
    assert 0 < manifest.parity.max_abs_difference <= manifest.parity.max_abs_difference_limit
    assert manifest.provenance.seed == 1
    assert manifest.provenance.config["batch_size"] == "32"
    assert len(manifest.provenance.dataset_sha256) == 64
    assert {"keras", "tensorflow", "onnx", "tf2onnx", "numpy", "python"} <= set(manifest.provenance.library_versions)
    assert manifest.provenance.created_at.endswith("Z")


def test_the_published_graph_answers_every_held_out_image_as_keras_does(version: Path, digits_run: Path) -> None:
    run = read_run_folder(digits_run)
    session = ort.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    [served] = session.run(None, {"images": run.test.images})
    expected = run.model.predict(run.test.images.astype(np.float32) / 255, verbose=0)
    assert np.abs(served - expected).max() <= 1e-5
    assert np.array_equal(served.argmax(axis=1), expected.argmax(axis=1))


def test_golden_samples_are_keras_answers_within_the_tolerance(version: Path, digits_run: Path) -> None:
    golden = load_golden_samples(version / "golden.npz")
    model = keras.saving.load_model(digits_run / "model.keras")
    images = golden.inputs["images"]
    assert len(images) == GOLDEN_IMAGES
    assert images.dtype == np.uint8
    outputs = {"probabilities": model.predict(images.astype(np.float32) / 255, verbose=0)}
    manifest = read_manifest(version)
    assert manifest is not None
    assert largest_difference(golden.outputs, outputs) <= manifest.golden_samples.tolerances["CPUExecutionProvider"]
    assert len(set(golden.outputs["probabilities"].argmax(axis=1))) == GOLDEN_IMAGES


def test_golden_samples_are_the_least_certain_of_different_labels() -> None:
    outputs = np.array([[0.9, 0.1], [0.8, 0.2], [0.45, 0.55], [0.6, 0.4]], np.float32)
    assert golden_positions(outputs, outputs, tolerance=1e-5).tolist() == [2, 3]


def test_a_second_export_is_the_second_version(own_run: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    for expected in ("1", "2"):
        version = publish(own_run, tmp_path / "models", "seven", say=lines.append)
        assert version == tmp_path / "models" / "seven" / expected
    assert any("differ by" in line and "360 test images" in line for line in lines)
    assert lines[-1] == f"published: {tmp_path / 'models' / 'seven' / '2'}"


def test_weights_that_were_not_measured_are_not_published(own_run: Path, tmp_path: Path) -> None:
    model = keras.saving.load_model(own_run / "model.keras")
    kernel, bias = model.get_layer("fc_2").get_weights()
    model.get_layer("fc_2").set_weights([kernel[:, ::-1], bias[::-1]])
    model.save(own_run / "model.keras")
    with pytest.raises(GateError, match=r"recorded a test accuracy of .*do not belong together; nothing was published"):
        publish(own_run, tmp_path / "models", None, say=silent)
    assert not (tmp_path / "models").exists()


def test_swapped_test_labels_are_not_published(own_run: Path, tmp_path: Path) -> None:
    with np.load(own_run / "heldout.npz") as file:
        images, labels = file["images"], file["labels"]
    np.savez(own_run / "heldout.npz", images=images, labels=9 - labels)
    with pytest.raises(GateError, match="recorded a test accuracy"):
        publish(own_run, tmp_path / "models", None, say=silent)


def test_a_model_with_constant_outputs_is_not_published(own_run: Path, tmp_path: Path) -> None:
    model = keras.saving.load_model(own_run / "model.keras")
    model.set_weights([weight * 0 for weight in model.get_weights()])
    model.save(own_run / "model.keras")
    with pytest.raises(GateError, match="the same answer"):
        publish(own_run, tmp_path / "models", None, say=silent)
    assert not (tmp_path / "models").exists()


def test_a_finished_run_is_replaced_only_when_asked(own_run: Path) -> None:
    with pytest.raises(RunFolderError, match=r"already holds a model; .* replace it with --overwrite"):
        train_run(CONFIG, out=own_run, data_dir=None, overwrite=False, say=silent)
    before = (own_run / "config.json").read_text()
    lines: list[str] = []
    train_run(replace(CONFIG, seed=2), out=own_run, data_dir=own_run, overwrite=True, say=lines.append)
    assert (own_run / "config.json").read_text() != before
    assert "note: digits is read from no files, so --data-dir is not used" in lines
    assert not [path for path in own_run.iterdir() if path.name.startswith(".")]


def test_a_run_folder_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written to as a run folder: Not a directory"):
        train_run(CONFIG, out=tmp_path / "file" / "run", data_dir=None, overwrite=False, say=silent)


@pytest.mark.parametrize("name", ["model.keras", "heldout.npz", "config.json", "metrics.json"])
def test_a_damaged_or_missing_file_of_a_run_is_named(own_run: Path, tmp_path: Path, name: str) -> None:
    for damage, message in (("damaged", name), (None, f"not a finished run: {name} is missing; make one with")):
        if damage is None:
            (own_run / name).unlink()
        else:
            (own_run / name).write_text(damage)
        with pytest.raises(RunFolderError, match=message):
            publish(own_run, tmp_path / "models", None, say=silent)


def test_a_wrong_model_name_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="cannot be a model's name"):
        publish(tmp_path / "nowhere", tmp_path, "../up", say=silent)


def test_what_is_exported_with_a_key_is_signed_with_its_label(own_run: Path, tmp_path: Path) -> None:
    keys = make_keys(tmp_path, "ours")
    options = ExportOptions(tmp_path / "models", label="canary", sign=keys.private, license_expression="mit")
    (version,) = export_run(own_run, options, say=silent)
    check_signature(version, keys.public)
    (version.parent / "version_labels.json").write_text('{"labels": {"stable": "1"}}')
    with pytest.raises(GateError, match=r"version_labels\.json"):
        verify_path(version, EvidenceOptions(), say=silent, model_key=keys.public)


def test_traffic_is_kept_and_signed_before_servers_can_see_the_new_version(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, seen = make_keys(tmp_path, "ours"), []

    def publish_and_look(*arguments: Any, seal: Callable[[Path], None]) -> Path:
        def look(folder: Path) -> None:
            seal(folder)
            model = folder.parents[1]
            verify_settings(model, keys.public)
            seen.append(
                (folder.name, dict(read_labels_and_traffic(model).traffic), [one.name for one in versions_of(model)])
            )

        return publish_version(*arguments, seal=look)

    first = publish(own_run, tmp_path / "models")
    sign_path(first.parent, keys.private)
    monkeypatch.setattr("inferry_trainer.workflow.export.publish_version", publish_and_look)
    spoken: list[str] = []
    options = ExportOptions(tmp_path / "models", label="canary", keep_traffic=True, sign=keys.private)
    (version,) = export_run(own_run, options, say=spoken.append)
    assert seen == [("2", {"stable": 100}, ["1"])]
    check_signature(version, keys.public)
    assert read_labels_and_traffic(version.parent).labels == {"stable": 1, "canary": 2}
    assert "traffic: requests that name no version stay with version 1 of digits, which is now stable" in spoken


@pytest.mark.parametrize("label", [None, "stable"])
def test_traffic_is_kept_from_a_labelled_version_alone(label: str | None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected another label than stable"):
        ExportOptions(tmp_path, label=label, keep_traffic=True)


def test_traffic_that_cannot_be_kept_is_refused_before_any_work(own_run: Path, tmp_path: Path) -> None:
    model = tmp_path / "models" / "digits"
    (model / "1").mkdir(parents=True)
    write_version_labels(model, {"canary": 1}, {"canary": 1})
    spoken: list[str] = []
    options = ExportOptions(tmp_path / "models", label="canary", keep_traffic=True)
    with pytest.raises(PublishError, match="gives all traffic to the label 'canary'"):
        export_run(own_run, options, say=spoken.append)
    assert spoken == []
