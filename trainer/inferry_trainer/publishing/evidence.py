"""Finding what a published version can be held against: its run, its data set, or a folder of pictures."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inferry_proto.manifest_pb2 import ModelManifest
from inferry_trainer.config import RunConfig, recipe_config
from inferry_trainer.datasets import NAMES, load_dataset, takes_files
from inferry_trainer.datasets.labelled_folder import read_labelled_folder
from inferry_trainer.errors import ConfigError
from inferry_trainer.evaluation.classifier import make_classifier
from inferry_trainer.export.keras_source import load_classifier, recorded_reading
from inferry_trainer.gates.scaled_jpeg import decode_twice, without_scaling
from inferry_trainer.publishing.verification import Evidence
from inferry_trainer.training.run_folder import read_run_folder

# What decides which test images a data set has; the rest of a run's settings decides other things.
_DATA_SETTINGS = ("validation_images", "train_images", "seed", "attribute", "color", "image_size")


@dataclass(frozen=True)
class EvidenceOptions:
    """Where the user says the evidence is; images at most once.

    Attributes:
        keras: the file of the Keras model, as it was exported.
        run: the run folder: Keras model and test images.
        data: a folder of pictures for each label.
        data_dir: the files of the data set that the manifest names.
        scaled_jpeg: a folder of large pictures for each label, for versions that decode large JPEGs smaller.
    """

    keras: Path | None = None
    run: Path | None = None
    data: Path | None = None
    data_dir: Path | None = None
    scaled_jpeg: Path | None = None

    def __post_init__(self) -> None:
        if sum(place is not None for place in (self.run, self.data, self.data_dir)) > 1:
            raise ConfigError("--run, --data and --data-dir each name the images; expected at most one of them")
        if self.run is not None and self.keras is not None:
            raise ConfigError("--run and --keras each name the Keras model; expected at most one of them")


def find_evidence(manifest: ModelManifest, options: EvidenceOptions) -> Evidence:
    """The evidence for or against a version.

    Without options, a data set that needs no files is loaded; nothing is downloaded.

    Raises:
        TrainerError: what the user named is not there, or is damaged.
    """
    evidence = _find_test(manifest, options)
    spec = manifest.preprocessing
    if options.scaled_jpeg is None or not spec.scaled_jpeg:
        return evidence
    return replace(evidence, decoded_twice=decode_twice(options.scaled_jpeg, tuple(manifest.labels), spec))


def _find_test(manifest: ModelManifest, options: EvidenceOptions) -> Evidence:
    if options.run is not None:
        run = read_run_folder(options.run)
        return Evidence(make_classifier(run.model), run.test, run.description.labels)
    evidence = _find_images(manifest, options)
    if options.keras is None:
        return evidence
    return replace(evidence, classifier=load_classifier(options.keras, **recorded_reading(manifest.provenance)))


def _find_images(manifest: ModelManifest, options: EvidenceOptions) -> Evidence:
    if options.data is not None:
        labels = tuple(manifest.labels)
        return Evidence(
            test=read_labelled_folder(options.data, labels, without_scaling(manifest.preprocessing)), labels=labels
        )
    name = manifest.provenance.dataset
    if name not in NAMES:
        return Evidence(why_not="its data set is not one of ours: name a folder of pictures with --data")
    if takes_files(name) and options.data_dir is None:
        return Evidence(
            why_not=f"the files of {name} are not at hand: name them with --data-dir, or its run with --run"
        )
    dataset = load_dataset(_data_config(manifest), data_dir=options.data_dir)
    return Evidence(test=dataset.test.prepare(), labels=dataset.labels)


def _data_config(manifest: ModelManifest) -> RunConfig:
    recorded = manifest.provenance.config
    config = recipe_config(manifest.provenance.dataset, "chapter")
    settings: dict[str, Any] = {
        name: type(getattr(config, name))(recorded[name])
        for name in _DATA_SETTINGS
        if hasattr(config, name) and name in recorded
    }
    return replace(config, **settings)
