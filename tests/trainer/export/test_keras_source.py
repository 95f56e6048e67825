"""Any Keras model, from its file to a published version."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from inferry_proto.manifest import read_manifest
from inferry_proto.version_labels import read_version_labels
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.cli import main
from inferry_trainer.errors import ConfigError, DatasetError, ExportError, TrainerError
from inferry_trainer.evaluation.classifier import Outputs, Pixels, make_classifier
from inferry_trainer.export.candidate import make_probes
from inferry_trainer.export.keras_source import KerasSource
from inferry_trainer.publishing.evidence import EvidenceOptions
from inferry_trainer.workflow.export import ExportOptions, export_keras
from inferry_trainer.workflow.verify import verify_path

layers = keras.layers


def silent(_line: str) -> None:
    pass


def residual_network() -> Any:
    """Functional, scales its own pixels, and ends in logits."""
    images = keras.Input((20, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(images)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(y)])
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Flatten()(layers.MaxPooling2D(4)(x))])
    return keras.Model(images, layers.Dense(3)(layers.Dropout(0.5)(x)), name="residual")


def binary_network() -> Any:
    return keras.Sequential(
        [keras.Input((12, 12, 1)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(1)], name="binary"
    )


def mobile_net() -> Any:
    """With the statistics of pictures in its normalisations: as built, it answers every picture alike."""
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=4)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(make_probes((32, 32, 3)) / np.float32(127.5) - 1, training=True)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 8, bias])
    return model


def perturb(model: Any, scale: float) -> Any:
    """Weights as if it had been trained: answers depend on the picture, and statistics are not 0 and 1."""
    rng = np.random.default_rng(1)
    model.set_weights(
        [
            (weight * scale + rng.uniform(0.02, 0.2, weight.shape)).astype(np.float32)
            if weight.ndim == 1
            else (weight * scale).astype(np.float32)
            for weight in model.get_weights()
        ]
    )
    return model


def write_pictures(folder: Path, images: UInt8Array, names: list[str]) -> None:
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(folder / name / f"{index:03}.png")


def save_with_data(model: Any, folder: Path, *, pixels: Pixels, labels: list[str]) -> Path:
    """A model's file beside a folder of pictures that it classifies without a mistake."""
    keras_file = folder / "mine.keras"
    model.save(keras_file)
    classifier = make_classifier(model, pixels=pixels)
    images = make_probes(classifier.image_shape)
    answers = classifier.predict(images).argmax(axis=1)
    images, answers = np.concatenate([images, images[:1].repeat(len(labels), 0)]), [*answers, *range(len(labels))]
    write_pictures(folder / "pictures", images, [labels[answer] for answer in answers])
    return keras_file


@pytest.mark.parametrize(
    ("build", "scale", "pixels", "labels"),
    [
        (residual_network, 1.5, Pixels.BYTES, ["cat", "dog", "owl"]),
        (binary_network, 2.0, Pixels.UNIT, ["ham", "spam"]),
        (mobile_net, 0, Pixels.SIGNED, ["a", "b", "c", "d"]),
    ],
)
def test_any_keras_model_is_published_with_proof_and_verifies(
    build: Callable[[], Any], scale: float, pixels: Pixels, labels: list[str], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(5)
    keras_file = save_with_data(perturb(build(), scale) if scale else build(), tmp_path, pixels=pixels, labels=labels)
    source = KerasSource(keras_file, ",".join(labels), data=tmp_path / "pictures", pixels=pixels.value)
    [version] = export_keras(source, ExportOptions(tmp_path / "models", label="canary"), say=silent)
    assert version == tmp_path / "models" / "mine" / "1"
    assert read_version_labels(version.parent) == {"canary": 1}
    manifest = read_manifest(version)
    assert manifest is not None
    assert [*manifest.labels] == labels
    assert not manifest.unverified
    assert manifest.evaluation.test_images == 64 + len(labels)
    assert manifest.evaluation.metrics["test_accuracy"] > 0.9
    assert manifest.provenance.config["pixels"] == pixels.value
    outcomes = {gate.name: gate.reason for gate in manifest.gates}
    assert bool(outcomes["third-opinion"]) == (build is not binary_network)
    if build is mobile_net:
        return  # it takes its time
    lines: list[str] = []
    verify_path(tmp_path / "models", EvidenceOptions(keras=keras_file, data=tmp_path / "pictures"), say=lines.append)
    assert any("parity: passed" in line for line in lines)


def test_without_data_a_model_is_published_as_unverified_and_never_as_stable(tmp_path: Path) -> None:
    keras.utils.set_random_seed(5)
    keras_file = tmp_path / "mine.keras"
    perturb(binary_network(), 2.0).save(keras_file)
    source = KerasSource(keras_file, "ham,spam", unverified=True)
    with pytest.raises(ConfigError, match="never published as stable"):
        export_keras(source, ExportOptions(tmp_path / "models", label="stable"), say=silent)
    with pytest.raises(ConfigError, match="published only with its accuracy measured"):
        export_keras(source, ExportOptions(tmp_path / "models", precisions=["float16"]), say=silent)
    [version] = export_keras(source, ExportOptions(tmp_path / "models"), say=silent)
    manifest = read_manifest(version)
    assert manifest is not None
    assert manifest.unverified
    assert not manifest.HasField("evaluation")
    assert manifest.parity.images == 64
    verify_path(version, EvidenceOptions(), say=silent)


def test_a_binary_network_gives_both_classes_and_cuts_at_one_half() -> None:
    keras.utils.set_random_seed(5)
    logits = binary_network()
    images = make_probes((12, 12, 1))
    raw = logits.predict(images.astype(np.float32) / 255, verbose=0)
    probabilities = make_classifier(logits).predict(images)
    assert probabilities.shape == (64, 2)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert np.array_equal(probabilities.argmax(axis=1), (raw[:, 0] > 0).astype(int))
    sigmoid = keras.Sequential([logits, layers.Activation("sigmoid")])
    assert np.allclose(make_classifier(sigmoid).predict(images), probabilities, atol=1e-6)
    assert make_classifier(sigmoid).outputs is Outputs.PROBABILITIES


def test_a_fixed_batch_dimension_is_freed() -> None:
    keras.utils.set_random_seed(5)
    fixed = keras.Sequential(
        [keras.Input(batch_shape=(8, 6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
    )
    images = make_probes((6, 6, 1))
    expected = fixed.predict(images.astype(np.float32) / 255, batch_size=8, verbose=0)
    freed = make_classifier(fixed, outputs=Outputs.PROBABILITIES)
    assert freed.model.input_shape == (None, 6, 6, 1)
    assert np.allclose(freed.predict(images[:5]), expected[:5], atol=1e-6)


def test_a_model_that_insists_on_its_batch_size_is_refused() -> None:
    inputs = keras.Input(batch_shape=(8, 4, 4, 1))
    outputs = layers.Dense(3)(keras.ops.reshape(inputs, (8, 16)))
    with pytest.raises(ExportError, match=r"built for batches of 8 images .*cannot be rebuilt for any number"):
        make_classifier(keras.Model(inputs, outputs))


def test_a_last_layer_that_says_nothing_asks_for_outputs() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3), layers.Dropout(0.1)])
    with pytest.raises(ExportError, match=r"'dropout\w*' \(Dropout\), does not tell .* --outputs"):
        make_classifier(model)


def test_a_layer_that_keras_does_not_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable(package='mine')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_layers  # type: ignore[import-not-found]  # written above

    keras.utils.set_random_seed(5)
    model = keras.Sequential([perturb(binary_network(), 2.0), my_layers.Twice(), layers.Activation("sigmoid")])
    model.build((None, 12, 12, 1))
    model.save(tmp_path / "mine.keras")
    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    registered.clear()
    monkeypatch.delitem(__import__("sys").modules, "my_layers")
    options = ExportOptions(tmp_path / "models")
    with pytest.raises(ExportError, match=r"it has the layer 'Twice', .* --import"):
        export_keras(KerasSource(tmp_path / "mine.keras", "a,b", unverified=True), options, say=silent)
    source = KerasSource(tmp_path / "mine.keras", "a,b", unverified=True, module="my_layers")
    assert export_keras(source, options, say=silent)
    registered.update(kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give its classes with --labels"),
        (["--labels", "a,b"], "give test images with --data FOLDER"),
        (["--labels", "a,b", "--data", "x", "--unverified"], "not both"),
        (["--labels", "a,b", "--unverified"], "is not there; expected a run folder or a Keras model's file"),
        (["--labels", "a,b", "--unverified", "--precision", "int4"], "precision is int4; expected some of float32"),
        (["--labels", "a,b", "--unverified", "--import", "no_such"], "--import no_such: ModuleNotFoundError"),
        (["--labels", "a,b", "--unverified", "--import", "no_such.py"], "name it 'no_such', without path and suffix"),
        (["--labels", "classes.txt", "--unverified"], "--labels classes.txt: there is no such file"),
        (["--labels", "a,b", "--data", "x", "--precision", "int8"], "name a folder of them with --calibration"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "mine.keras"), "--repository", str(tmp_path / "models"), *arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_data_that_does_not_fit_the_labels_is_refused(tmp_path: Path) -> None:
    keras_file = tmp_path / "mine.keras"
    perturb(binary_network(), 2.0).save(keras_file)
    write_pictures(tmp_path / "pictures", make_probes((12, 12, 1))[:2], ["ham", "eggs"])
    options = ExportOptions(tmp_path / "models")
    with pytest.raises(DatasetError, match="missing spam; no label is called eggs"):
        export_keras(KerasSource(keras_file, "ham,spam", data=tmp_path / "pictures"), options, say=silent)
    with pytest.raises(TrainerError, match="tells 2 classes apart; 3 labels came"):
        export_keras(KerasSource(keras_file, "ham,spam,eggs", data=tmp_path / "pictures"), options, say=silent)
    many = ",".join(f"class {number}" for number in range(999))
    with pytest.raises(TrainerError, match=r"999 labels came .*class 4 and 994 more.* one for each output") as refused:
        export_keras(KerasSource(keras_file, many, data=tmp_path / "pictures"), options, say=silent)
    assert len(str(refused.value)) < 400 + len(str(keras_file))


def test_a_model_that_scales_its_own_pixels_is_not_scaled_again(tmp_path: Path) -> None:
    keras_file = save_with_data(
        perturb(residual_network(), 1.5), tmp_path, pixels=Pixels.BYTES, labels=["cat", "dog", "owl"]
    )
    options = ExportOptions(tmp_path / "models")
    lines: list[str] = []
    source = KerasSource(keras_file, "cat,dog,owl", data=tmp_path / "pictures")
    [version] = export_keras(source, options, say=lines.append)
    assert lines[0].startswith("pixels: 0-255: the model scales its own pixels")
    manifest = read_manifest(version)
    assert manifest is not None
    assert manifest.provenance.config["pixels"] == "0-255"
    wrong = KerasSource(keras_file, "cat,dog,owl", data=tmp_path / "pictures", pixels="0-1")
    with pytest.raises(ConfigError, match="--pixels 0-1 would scale pixels twice"):
        export_keras(wrong, options, say=silent)
