import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats  # type: ignore[import-untyped]

from inferry_proto.version_labels import write_version_labels
from inferry_trainer.cli import main
from inferry_trainer.errors import ConfigError, PublishError, TrainerError
from inferry_trainer.evaluation.comparison import compare_answers, sign_test
from inferry_trainer.export.candidate import Candidate
from inferry_trainer.publishing.evidence import EvidenceOptions
from inferry_trainer.workflow.diff import diff_versions
from inferry_trainer.workflow.list_versions import list_path
from inferry_trainer.workflow.verify import verify_path


@pytest.fixture
def models(tinted_models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tinted_models, tmp_path / "models"))


@pytest.fixture
def pictures(tinted: Candidate, tmp_path: Path) -> Path:
    """The network's test images as files, a folder a label."""
    assert tinted.test is not None
    for index, (image, label) in enumerate(zip(tinted.test.images, tinted.test.labels.tolist(), strict=True)):
        folder = tmp_path / "pictures" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:04}.png")
    return tmp_path / "pictures"


def test_a_list_shows_every_version_with_its_labels(models: Path) -> None:
    shutil.copytree(models / "tinted" / "1", models / "tinted" / "10")
    (models / "tinted" / "10" / "manifest.json").unlink()
    (models / "tinted-int8" / "1" / "manifest.json").write_text("{")
    (models / ".publishing-1").mkdir()
    write_version_labels(models / "tinted", {"stable": 1, "canary": 1, "next": 10})
    lines: list[str] = []
    list_path(models, say=lines.append)
    head, one, ten, half, whole = (line.split() for line in lines)
    assert head[:4] == ["MODEL", "VERSION", "LABELS", "PRECISION"]
    assert one[:4] == ["tinted", "1", "canary,stable", "float32"]
    assert one[4].endswith("%")
    assert ten[:3] == ["tinted", "10", "next"]
    assert "no manifest" in lines[2]
    assert half[:4] == ["tinted-float16", "1", "-", "float16"]
    assert "damaged manifest" in lines[4]
    assert whole[0] == "tinted-int8"


def test_nothing_to_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="holds no version; expected <repository>"):
        list_path(tmp_path, say=lambda _: None)
    with pytest.raises(PublishError, match="is not a folder"):
        list_path(tmp_path / "nowhere", say=lambda _: None)


def test_a_diff_shows_what_two_versions_have_in_common(models: Path, pictures: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first, second = models / "tinted" / "1", models / "tinted-int8" / "1"
    out = tmp_path / "disagreements"
    comparison = diff_versions(first, second, EvidenceOptions(data=pictures), pictures=out, say=lines.append)
    assert comparison.first.images == 360
    assert comparison.first.accuracy > 0.9
    assert comparison.agreement > 0.97
    assert comparison.max_abs_difference > 0
    text = "\n".join(lines)
    for shown in ("float32", "int8", "MB", "32 images", "agreement", "comes by chance"):
        assert shown in text
    assert len(list(out.iterdir())) == len(comparison.disagreements)
    same = diff_versions(first, first, EvidenceOptions(data=pictures), pictures=None, say=lambda _: None)
    assert (same.agreement, same.max_abs_difference, same.chance) == (1, 0, 1)


def test_versions_that_cannot_be_compared_are_refused(models: Path, tmp_path: Path) -> None:
    first, second = models / "tinted" / "1", models / "tinted-int8" / "1"
    with pytest.raises(ConfigError, match=r"nothing to compare them on: .* name a folder of pictures with --data"):
        diff_versions(first, second, EvidenceOptions(), pictures=None, say=lambda _: None)
    manifest = second / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"9"', '"nine"'))
    with pytest.raises(ConfigError, match="different labels: 0, 1"):
        diff_versions(first, second, EvidenceOptions(), pictures=None, say=lambda _: None)
    with pytest.raises(ConfigError, match="at most one of them"):
        EvidenceOptions(run=tmp_path, data=tmp_path)


def test_verify_looks_at_all_versions_and_names_each_that_fails(models: Path, pictures: Path) -> None:
    lines: list[str] = []
    verify_path(models, EvidenceOptions(data=pictures), say=lines.append)
    assert sum("gates passed" in line for line in lines) == 3
    assert sum(line.startswith("  accuracy-drop: passed") for line in lines) == 2
    (models / "tinted" / "1" / "model.onnx").write_bytes(b"")
    (models / "tinted-int8" / "1" / "golden.npz").unlink()
    with pytest.raises(
        TrainerError, match=r"2 of 3 versions failed: gate checksum: .*tinted/1: .*; gate checksum: "
    ) as e:
        verify_path(models, EvidenceOptions(data=pictures), say=lambda _: None)
    assert "tinted-int8/1: " in str(e.value)
    verify_path(models / "tinted-float16", EvidenceOptions(), say=lambda _: None)


def test_verify_and_list_speak_on_the_command_line(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(models)]) == 0
    assert capsys.readouterr().out.startswith("MODEL ")
    assert main(["verify", str(models / "tinted" / "1")]) == 0
    assert "golden: passed" in capsys.readouterr().out
    (models / "tinted" / "1" / "manifest.json").unlink()
    assert main(["verify", str(models / "tinted" / "1")]) == 1
    assert "error: gate manifest: " in capsys.readouterr().err


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_scipys(wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected)


@given(st.integers(0, 1000))
def test_counts_of_a_comparison_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random((50, 3)).astype(np.float32), rng.random((50, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 50)
    comparison = compare_answers(first, second, labels)
    assert comparison.first.correct - comparison.second.correct == (
        comparison.only_first_right - comparison.only_second_right
    )
    assert comparison.only_first_right + comparison.only_second_right <= len(comparison.disagreements)
    mirrored = compare_answers(second, first, labels)
    assert np.array_equal(mirrored.disagreements, comparison.disagreements)
    assert mirrored.chance == comparison.chance
