"""Models that take pictures in ways of their own, and what cannot be taken for a classifier of pictures."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from inferry_trainer.cli import main
from inferry_trainer.errors import ConfigError, ExportError
from inferry_trainer.evaluation.classifier import Classifier, Outputs, make_classifier
from inferry_trainer.evaluation.pictures_in import ImageSize, parse_image_size
from inferry_trainer.export.candidate import make_probes
from inferry_trainer.export.convert import export_classifier
from inferry_trainer.export.onnx_model import load_onnx_model

layers = keras.layers
HAS_ONEDNN = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"


def classes(features: Any) -> Any:
    return layers.Dense(3, activation="softmax")(features)


def without_channels() -> Any:
    return keras.Sequential([keras.Input((6, 7)), layers.Flatten(), layers.Dense(3, activation="softmax")])


def channels_first() -> Any:
    images = keras.Input((3, 6, 7))
    x = layers.Conv2D(4, 3, data_format="channels_first", activation="relu")(images)
    return keras.Model(images, classes(layers.GlobalAveragePooling2D(data_format="channels_first")(x)))


def of_open_size() -> Any:
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=2, activation="relu")(images)
    return keras.Model(images, classes(layers.GlobalMaxPooling2D()(x)))


def of_open_width() -> Any:
    images = keras.Input((6, None, 1))
    return keras.Model(images, classes(layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(images))))


def in_dicts() -> Any:
    images = keras.Input((6, 7, 3), name="pixels")
    return keras.Model({"pixels": images}, {"answers": classes(layers.GlobalAveragePooling2D()(images))})


def in_lists() -> Any:
    images = keras.Input((6, 7, 3))
    return keras.Model([images], [classes(layers.GlobalAveragePooling2D()(images))])


class OfItsOwn(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A subclassed model whose last layer by name is not the last that it calls."""

    def __init__(self) -> None:
        super().__init__(name="of_its_own")
        self.last = layers.Dense(3, activation="softmax")
        self.first = layers.Conv2D(4, 3, activation="relu")
        self.pool = layers.GlobalAveragePooling2D()

    def call(self, images: Any) -> Any:
        return self.last(self.pool(self.first(images)))


def built(model: Any, *shape: int) -> Any:
    model(np.zeros((1, *shape), np.float32))
    return model


def lively(model: Any) -> Any:
    rng = np.random.default_rng(1)
    model.set_weights([weight + rng.normal(0, 0.5, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


def as_a_graph_answers(classifier: Classifier, folder: Path) -> Any:
    images = make_probes(classifier.image_shape)
    export_classifier(classifier, folder / "model.onnx")
    answers = load_onnx_model(folder / "model.onnx").predict(images)
    assert np.abs(answers - classifier.predict(images)).max() < 1e-5
    return images, answers


@pytest.mark.parametrize(
    ("build", "size", "shape", "as_the_model_takes_it"),
    [
        (without_channels, None, (6, 7, 1), lambda images: images[..., 0]),
        pytest.param(
            channels_first,
            None,
            (6, 7, 3),
            lambda images: images.transpose(0, 3, 1, 2),
            marks=pytest.mark.skipif(not HAS_ONEDNN, reason="TensorFlow computes channels_first by oneDNN alone"),
        ),
        (of_open_size, ImageSize(9, 12), (9, 12, 3), lambda images: images),
        (of_open_width, ImageSize(6, 11), (6, 11, 1), lambda images: images),
        (in_dicts, None, (6, 7, 3), lambda images: {"pixels": images}),
        (in_lists, ImageSize(6, 7), (6, 7, 3), lambda images: [images]),
    ],
)
def test_a_model_that_takes_pictures_its_own_way_is_exported(
    build: Callable[[], Any],
    size: ImageSize | None,
    shape: tuple[int, int, int],
    as_the_model_takes_it: Callable[[Any], Any],
    tmp_path: Path,
) -> None:
    keras.utils.set_random_seed(3)
    model = lively(build())
    classifier = make_classifier(model, image_size=size)
    assert classifier.image_shape == shape
    assert classifier.outputs is Outputs.PROBABILITIES
    images, answers = as_a_graph_answers(classifier, tmp_path)
    direct = model(as_the_model_takes_it(images.astype(np.float32) / 255))
    [direct] = keras.tree.flatten(direct)
    assert np.abs(np.asarray(direct) - answers).max() < 1e-5


WITHOUT_ONEDNN = """
import keras, numpy as np
from inferry_trainer.errors import ExportError
from inferry_trainer.evaluation.classifier import make_classifier
images = keras.Input((3, 6, 7))
x = keras.layers.Conv2D(4, 3, data_format="channels_first")(images)
x = keras.layers.GlobalAveragePooling2D(data_format="channels_first")(x)
classifier = make_classifier(keras.Model(images, keras.layers.Dense(3, activation="softmax")(x), name="first"))
try:
    classifier.predict(np.zeros((1, 6, 7, 3), np.uint8))
except ExportError as error:
    print(error)
"""


def test_what_tensorflow_cannot_compute_on_this_processor_is_said_with_the_way_out() -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "-c", WITHOUT_ONEDNN]
    done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, check=True, timeout=300)
    assert "cannot compute model 'first' on this processor: " in done.stdout
    assert "NHWC" in done.stdout
    assert "set it to 1" in done.stdout


def test_a_class_of_its_own_is_exported_where_it_is_said_what_it_gives(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    model = lively(built(OfItsOwn(), 6, 7, 3))
    with pytest.raises(ExportError, match=r"\(OfItsOwn\), does not tell .* --outputs"):
        make_classifier(model)
    classifier = make_classifier(model, outputs=Outputs.PROBABILITIES)
    assert classifier.image_shape == (6, 7, 3)
    as_a_graph_answers(classifier, tmp_path)


def two_inputs() -> Any:
    images, age = keras.Input((6, 7, 3), name="images"), keras.Input((1,), name="age")
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(images), age])
    return keras.Model({"images": images, "age": age}, classes(x))


def two_outputs() -> Any:
    images = keras.Input((6, 7, 3))
    x = layers.Flatten()(images)
    return keras.Model(images, {"breed": classes(x), "age": layers.Dense(1)(x)})


def features_at_every_place() -> Any:
    return keras.Sequential([keras.Input((6, 7, 3)), layers.Conv2D(3, 1)])


def flat() -> Any:
    return keras.Sequential([keras.Input((9,)), layers.Dense(3)])


def unbuilt() -> Any:
    return keras.Sequential([layers.Conv2D(3, 1), layers.Flatten(), layers.Dense(3)])


@pytest.mark.parametrize(
    ("build", "size", "message"),
    [
        (two_inputs, None, r"takes 2 inputs, .*age \(None, 1\).*; a classifier takes one"),
        (two_outputs, None, r"gives 2 outputs \(breed, age\); .* keras.Model\(model.input, model.output\[...\]\)"),
        (features_at_every_place, None, r"gives \(None, 6, 7, 3\); .* GlobalAveragePooling2D"),
        (flat, None, r"takes \(None, 9\); expected pictures: .* as its first layer"),
        (unbuilt, None, "saved before it was built, .* call it on pictures, or fit it"),
        (OfItsOwn, None, "saved before it was built"),
        (of_open_size, None, "takes pictures of any size, .* --image-size 224"),
        (of_open_width, ImageSize(7, 7), "--image-size 7x7 is not possible"),
        (without_channels, ImageSize(28, 28), "--image-size 28x28 is not possible: leave it out"),
    ],
)
def test_what_is_no_classifier_of_pictures_is_refused_with_the_way_out(
    build: Callable[[], Any], size: ImageSize | None, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        make_classifier(build(), image_size=size)


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), ("160x120", (160, 120)), ("8X9", (8, 9))])
def test_an_image_size_is_a_side_or_height_and_width(text: str, size: tuple[int, int]) -> None:
    assert parse_image_size(text) == ImageSize(*size)


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "12x", "12x0", "a", "1x2x3"])
def test_other_image_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a side, 224 say, or height and width"):
        parse_image_size(text)


def test_a_folder_of_tensorflows_own_format_is_refused_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "saved_model.pb").write_bytes(b"")
    command = ["export", str(tmp_path / "exported"), "--repository", str(tmp_path), "--labels", "a,b", "--unverified"]
    assert main(command) == 1
    assert "SavedModel, which Keras 3 does not load" in capsys.readouterr().err
