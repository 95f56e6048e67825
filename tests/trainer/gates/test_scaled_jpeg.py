"""Decoding large JPEGs smaller is published only with what it costs measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inferry_proto.manifest import read_manifest
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.errors import ConfigError, GateError
from inferry_trainer.evaluation.evaluate import Evaluation
from inferry_trainer.export.candidate import Candidate
from inferry_trainer.gates.scaled_jpeg import check_scaled_jpeg, decode_twice
from inferry_trainer.publishing.evidence import EvidenceOptions, find_evidence
from inferry_trainer.publishing.verification import Evidence, verify_version
from inferry_trainer.workflow.export import ExportOptions, publish_candidate
from inferry_trainer.workflow.verify import verify_path


def write_photographs(folder: Path, tinted: Candidate, *, side: int, count: int = 3) -> Path:
    """Test pictures as a camera would send them, some of each label."""
    assert tinted.test is not None
    for index, label in enumerate(tinted.labels):
        (folder / label).mkdir(parents=True)
        for number in np.flatnonzero(tinted.test.labels == index)[:count]:
            picture = Image.fromarray(tinted.test.images[number]).resize((side, side), Image.Resampling.BICUBIC)
            picture.save(folder / label / f"{number}.jpg", quality=90)
    return folder


def evaluation(correct: int) -> Evaluation:
    return Evaluation(images=1000, correct=correct, loss=0.0, confusion=np.zeros((2, 2), np.int64))


def test_a_version_says_that_jpegs_are_decoded_smaller_once_that_was_measured(
    tinted: Candidate, tmp_path: Path
) -> None:
    photographs = write_photographs(tmp_path / "photographs", tinted, side=300)
    options = ExportOptions(tmp_path / "models", scaled_jpeg=photographs, max_accuracy_drop=10.0)
    (version,) = publish_candidate(tinted, options, say=lambda _: None)
    manifest = read_manifest(version)
    assert manifest is not None
    assert manifest.preprocessing.scaled_jpeg
    (gate,) = (gate for gate in manifest.gates if gate.name == "scaled-jpeg")
    assert gate.figures["images"] == 30
    assert gate.figures["images_decoded_smaller"] > 20
    assert gate.figures["accuracy"] >= gate.figures["accuracy_whole"] - 0.1
    assert not tinted.preprocessing.scaled_jpeg
    verified = verify_version(version, Evidence(tinted.classifier, tinted.test, tinted.labels))
    (again,) = (result for result in verified if result.gate == "scaled-jpeg")
    assert "name a folder of them with --scaled-jpeg" in again.reason


def test_verify_repeats_what_decoding_smaller_costs_by_the_limit_of_the_export(
    tinted: Candidate, tmp_path: Path
) -> None:
    photographs = write_photographs(tmp_path / "photographs", tinted, side=300)
    options = ExportOptions(tmp_path / "models", scaled_jpeg=photographs, max_accuracy_drop=10.0)
    (version,) = publish_candidate(tinted, options, say=lambda _: None)
    lines: list[str] = []
    verify_path(version, EvidenceOptions(scaled_jpeg=photographs), say=lines.append)
    (line,) = (line for line in lines if "scaled-jpeg" in line)
    assert "images_decoded_smaller" in line
    assert "points_limit 10" in line

    manifest = read_manifest(version)
    assert manifest is not None
    manifest.preprocessing.scaled_jpeg = False
    whole = find_evidence(manifest, EvidenceOptions(scaled_jpeg=photographs))
    assert whole.decoded_twice is None


def test_without_a_measurement_jpegs_are_decoded_whole(tinted_models: Path) -> None:
    manifest = read_manifest(tinted_models / "tinted" / "1")
    assert manifest is not None
    assert not manifest.preprocessing.scaled_jpeg


def test_more_lost_than_is_accepted_is_refused() -> None:
    assert check_scaled_jpeg(evaluation(900), evaluation(899), different=9, limit=0.1).figures["points"] > 0.09
    with pytest.raises(GateError, match=r"0\.200 percentage points are lost; at most 0\.1"):
        check_scaled_jpeg(evaluation(900), evaluation(898), different=9, limit=0.1)


def test_pictures_that_are_too_small_measure_nothing(tinted: Candidate, tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "small", tinted, side=27, count=1)
    with pytest.raises(ConfigError, match=r"none of the 10 pictures .* at least 56 pixels a side"):
        decode_twice(folder, tinted.labels, tinted.preprocessing)
    cropped = Preprocessing()
    cropped.CopyFrom(tinted.preprocessing)
    cropped.crop.SetInParent()
    with pytest.raises(ConfigError, match="without effect where the preprocessing has a crop box"):
        decode_twice(folder, tinted.labels, cropped)
