"""A model that asks to be published, with everything it will be judged by."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inferry_proto import manifest_pb2
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.datasets import Part
from inferry_trainer.environment import library_versions
from inferry_trainer.evaluation.classifier import Classifier, make_classifier
from inferry_trainer.training.description import RunDescription, timestamp
from inferry_trainer.training.run_folder import FinishedRun

PROBES = 64
_CONVERTERS = ("tf2onnx", "onnx", "onnxruntime-gpu", "onnxruntime")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A Keras model and what is known of it.

    Attributes:
        classifier: the model.
        name: of the model in a repository, where the user names none.
        labels: line i names class i.
        preprocessing: what a picture becomes before the model sees it.
        dataset: the test images' name.
        test: what it is judged by; None publishes it unverified.
        calibration: training images for int8; None where there are none.
        recorded_accuracy: measured when it was trained; None where nothing was recorded.
        recorded_loss: measured when it was trained; None where nothing was recorded.
        provenance: where it came from.
    """

    classifier: Classifier
    name: str
    labels: tuple[str, ...]
    preprocessing: manifest_pb2.Preprocessing
    dataset: str
    test: Part | None
    calibration: UInt8Array | None = None
    recorded_accuracy: float | None = None
    recorded_loss: float | None = None
    provenance: manifest_pb2.Provenance = field(default_factory=manifest_pb2.Provenance)

    @property
    def images(self) -> UInt8Array:
        """What Keras and graph are both asked: every test image, or made-up ones where there is none."""
        return self.test.images if self.test is not None else make_probes(self.classifier.image_shape)


def candidate_from_run(run: FinishedRun) -> Candidate:
    """A finished run's model; it will be judged by the run's whole test set.

    Raises:
        ExportError: not a classifier of pictures.
    """
    return Candidate(
        classifier=make_classifier(run.model),
        name=run.description.config.dataset,
        labels=run.description.labels,
        preprocessing=run.description.preprocessing,
        dataset=run.description.config.dataset,
        test=run.test,
        calibration=run.calibration,
        recorded_accuracy=run.test_accuracy,
        recorded_loss=run.test_loss,
        provenance=_provenance(run.description),
    )


def make_probes(image_shape: tuple[int, int, int]) -> UInt8Array:
    """Made-up pictures, always the same: blots of differing size, place, brightness and colour on noise.

    They say nothing about accuracy, but a faithful graph answers them as Keras does.

    Returns:
        `(64, H, W, C)` uint8.
    """
    height, width, channels = image_shape
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    probes = np.empty((PROBES, *image_shape), np.uint8)
    for probe in probes:
        picture: Any = rng.uniform(0, 128, channels) + rng.uniform(0, 48, image_shape)
        for _ in range(rng.integers(1, 5)):
            (row, column), size = rng.random(2), rng.uniform(0.05, 0.4)
            blot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / size**2)
            picture = picture + blot[:, :, None] * rng.uniform(-200, 200, channels)
        probe[:] = picture.clip(0, 255)
    return probes


def _provenance(run: RunDescription) -> manifest_pb2.Provenance:
    """Where the weights came from, and with what they are converted."""
    return manifest_pb2.Provenance(
        created_at=timestamp(),
        dataset=run.config.dataset,
        dataset_sha256=run.dataset_sha256,
        train_images=run.train_images,
        validation_images=run.validation_images,
        seed=run.config.seed,
        config={name: str(value) for name, value in vars(run.config).items()},
        library_versions=dict(run.library_versions) | converter_versions(),
        git_revision=run.git_revision,
    )


def converter_versions() -> dict[str, str]:
    """Versions of what turns a Keras model into a graph."""
    return {name: version for name, version in library_versions().items() if name in _CONVERTERS}
