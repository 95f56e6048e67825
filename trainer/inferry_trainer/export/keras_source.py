"""Anybody's Keras model, from its file, with what has to be said about it by hand."""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import keras
import numpy as np

from inferry_proto.manifest_pb2 import Preprocessing, Provenance
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.datasets.dataset import read_picture
from inferry_trainer.datasets.folder import SUFFIXES, find_pictures
from inferry_trainer.datasets.labelled_folder import read_labelled_folder
from inferry_trainer.environment import library_versions
from inferry_trainer.errors import ConfigError, DatasetError, ExportError
from inferry_trainer.evaluation.classifier import Classifier, Outputs, Pixels, make_classifier
from inferry_trainer.evaluation.pictures_in import ImageSize, parse_image_size
from inferry_trainer.export.candidate import Candidate
from inferry_trainer.export.class_labels import check_label_count, read_labels
from inferry_trainer.export.loading import import_module, reason_of
from inferry_trainer.export.pixel_range import decide_pixels
from inferry_trainer.training.description import timestamp

_CALIBRATION_IMAGES = 1024


@dataclass(frozen=True)
class KerasSource:
    """A Keras model's file and what is said about it.

    Attributes:
        path: `.keras` or `.h5`.
        labels: its classes in the order of its outputs, with commas between, or a file with one a line.
        data: test images, a folder for each label.
        unverified: publish without data.
        pixels: what it takes pixels to be; None asks its first layers.
        outputs: what it gives; None asks its last layer.
        calibration: a folder of training images, for int8.
        module: a Python module that registers the layers it needs.
        image_size: what a model of open size is to take, as `parse_image_size` reads it.

    Raises:
        ConfigError: labels or data are missing.
    """

    path: Path
    labels: str | None
    data: Path | None = None
    unverified: bool = False
    pixels: str | None = None
    outputs: str | None = None
    calibration: Path | None = None
    module: str | None = None
    image_size: str | None = None

    def __post_init__(self) -> None:
        if self.labels is None:
            raise ConfigError(f"what {self.path} answers has no names; give its classes with --labels, in order")
        if (self.data is None) != self.unverified:
            raise ConfigError(
                "a model is published with its accuracy: give test images with --data FOLDER (a folder of pictures for "
                "each label), or say --unverified" + ("; not both" if self.unverified else "")
            )


class Reading(TypedDict):
    """How a Keras model's inputs and outputs are to be understood."""

    pixels: Pixels
    outputs: Outputs | None
    image_size: ImageSize | None


def candidate_from_keras(source: KerasSource) -> Candidate:
    """The model of a file as a candidate for publication.

    Raises:
        TrainerError: a model, labels or pictures that cannot be read or do not fit together.
    """
    labels = read_labels(source.labels or "")
    if source.module is not None:
        import_module(source.module)
    outputs = None if source.outputs is None else Outputs(source.outputs)
    image_size = None if source.image_size is None else parse_image_size(source.image_size)
    classifier = load_classifier(source.path, pixels=Pixels.UNIT, outputs=outputs, image_size=image_size)
    pixels, why = decide_pixels(classifier.model, None if source.pixels is None else Pixels(source.pixels))
    classifier = replace(classifier, pixels=pixels)
    check_label_count(labels, classifier.classes, of=source.path)
    height, width, channels = classifier.image_shape
    spec = Preprocessing(
        color_mode=Preprocessing.GRAYSCALE if channels == 1 else Preprocessing.RGB,
        height=height,
        width=width,
        filter=Preprocessing.BILINEAR,
    )
    return Candidate(
        classifier=classifier,
        name=source.path.stem,
        labels=labels,
        preprocessing=spec,
        dataset="" if source.data is None else source.data.name,
        test=None if source.data is None else read_labelled_folder(source.data, labels, spec),
        calibration=None if source.calibration is None else _read_calibration(source.calibration, spec),
        provenance=_provenance(source, classifier, why),
    )


def is_saved_model(path: Path) -> bool:
    """Whether a folder holds a model in TensorFlow's own format."""
    return (path / "saved_model.pb").is_file()


def load_classifier(
    path: Path, *, pixels: Pixels, outputs: Outputs | None, image_size: ImageSize | None = None
) -> Classifier:
    """A Keras file's model as a classifier.

    Raises:
        ExportError: the file cannot be loaded, names the layer that Keras does not know, or is no classifier.
    """
    if is_saved_model(path):
        raise ExportError(
            f"{path} is a TensorFlow SavedModel, which Keras 3 does not load as a model; in the program that has the "
            "model, or with the Keras that wrote the folder, call model.save('model.keras') and export that file"
        )
    if not path.is_file():
        raise ExportError(f"{path} is not there; expected a run folder or a Keras model's file (.keras, .h5)")
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever a damaged archive or an unknown layer leads it to
        raise ExportError(f"{path} cannot be loaded as a Keras model: {reason_of(error)}") from error
    return make_classifier(model, pixels=pixels, outputs=outputs, image_size=image_size)


def recorded_reading(provenance: Provenance) -> Reading:
    """How a published model's inputs and outputs were understood when it was exported."""
    config = provenance.config
    outputs = Outputs(config["outputs"]) if "outputs" in config else None
    return Reading(
        pixels=Pixels(config["pixels"]) if "pixels" in config else Pixels.UNIT,
        outputs=outputs,
        image_size=parse_image_size(config["image_size"]) if "image_size" in config else None,
    )


def _read_calibration(folder: Path, spec: Preprocessing) -> UInt8Array:
    files = find_pictures(folder)
    if not files:
        raise DatasetError(f"{folder} holds no picture ({', '.join(SUFFIXES)}) to calibrate with")
    chosen = np.random.default_rng(0).permutation(len(files))[:_CALIBRATION_IMAGES]
    return np.stack([read_picture(files[index], spec) for index in chosen])


def _provenance(source: KerasSource, classifier: Classifier, pixels_why: str) -> Provenance:
    return Provenance(
        created_at=timestamp(),
        dataset="" if source.data is None else source.data.name,
        config={
            "keras_file": source.path.name,
            "keras_sha256": hashlib.sha256(source.path.read_bytes()).hexdigest(),
            "pixels": classifier.pixels.value,
            "pixels_why": pixels_why,
            "outputs": classifier.outputs.value,
            "parameters": str(sum(math.prod(weight.shape) for weight in _weights(classifier.model))),
        }
        | ({} if source.image_size is None else {"image_size": source.image_size}),
        library_versions=library_versions(),
    )


def _weights(model: Any) -> list[Any]:
    return list(model.weights)
