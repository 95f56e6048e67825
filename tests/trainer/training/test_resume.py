import json
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from inferry_trainer.cli import main
from inferry_trainer.config import RunConfig
from inferry_trainer.errors import ConfigError, DatasetError, RunFolderError
from inferry_trainer.training.train import train_model
from inferry_trainer.workflow.run import train_run

CONFIG = RunConfig("folder", network="all-conv", epochs=3, batch_size=8, validation_images=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, least in (("dark", 0), ("light", 150)):
        (folder / name).mkdir()
        for index in range(20):
            pixels = rng.integers(least, least + 100, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def silent(_line: str) -> None:
    pass


def interrupt(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when this many epochs are done."""

    def train(*arguments: object, **settings: object) -> object:
        def stop(record: object) -> None:
            if record.epoch == after:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        return train_model(*arguments, **(settings | {"on_epoch": stop}))  # type: ignore[arg-type]

    monkeypatch.setattr("inferry_trainer.workflow.run.train_model", train)


def test_an_interrupted_run_goes_on_to_the_same_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, straight = tmp_path / "run", tmp_path / "straight"
    with monkeypatch.context() as patched:
        interrupt(2, patched)
        with pytest.raises(KeyboardInterrupt):
            train_run(CONFIG, out=out, data_dir=pictures, say=silent)
    assert not (out / "model.keras").exists()
    with pytest.raises(RunFolderError, match="holds a run that was interrupted; go on with --resume"):
        train_run(CONFIG, out=out, data_dir=pictures, say=silent)
    lines: list[str] = []
    train_run(CONFIG, out=out, data_dir=pictures, resume=True, say=lines.append)
    assert any("going on after epoch 2" in line for line in lines)
    train_run(CONFIG, out=straight, data_dir=pictures, say=silent)
    one, other = (keras.saving.load_model(folder / "model.keras").get_weights() for folder in (out, straight))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    metrics, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (out, straight))
    assert metrics["test_loss"] == expected["test_loss"]
    assert (out / "history.csv").read_text().count("\n") == 4

    with pytest.raises(RunFolderError, match=r"is finished: 3 epochs are done; .* larger --epochs"):
        train_run(CONFIG, out=out, data_dir=pictures, resume=True, say=silent)
    longer = RunConfig(**{**vars(CONFIG), "epochs": 4})
    train_run(longer, out=out, data_dir=pictures, resume=True, say=silent)
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 4


def test_a_run_does_not_go_on_with_other_settings_or_other_images(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt(1, patched)
        with pytest.raises(KeyboardInterrupt):
            train_run(CONFIG, out=tmp_path / "run", data_dir=pictures, say=silent)
    other = RunConfig(**{**vars(CONFIG), "batch_size": 16})
    with pytest.raises(ConfigError, match="not the run that was interrupted: batch_size was 8, is 16"):
        train_run(other, out=tmp_path / "run", data_dir=pictures, resume=True, say=silent)
    seeded = RunConfig(**{**vars(CONFIG), "seed": 2})
    with pytest.raises(ConfigError, match="seed was 1, is 2; the images are others"):
        train_run(seeded, out=tmp_path / "run", data_dir=pictures, resume=True, say=silent)


def test_a_refused_run_leaves_no_folder(tmp_path: Path, no_data: Path) -> None:
    out = tmp_path / "runs" / "deep" / "run"
    with pytest.raises(DatasetError):
        train_run(CONFIG, out=out, data_dir=tmp_path / "nowhere", say=silent)
    assert not (tmp_path / "runs").exists()
    assert main(["run", "celeba", "--out", str(out)]) == 1
    assert not (tmp_path / "runs").exists()


def test_there_is_nothing_to_resume_in_an_empty_folder(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data-dir", str(pictures), "--resume"]
    assert main(["run", "folder", "--out", str(tmp_path / "run"), *flags]) == 1
    assert "there is nothing to resume; start without --resume" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_killed_goes_on_from_the_command_line(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--data-dir", str(pictures), "--network", "all-conv", "--epochs", "400", "--patience", "0"]
    command = [sys.executable, "-m", "inferry_trainer.cli", "run", "folder", "--out", str(out), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch   2/"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert main([*command[3:], "--resume", "--epochs", "6"]) == 0
    rows = (out / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3", "4", "5", "6"]
