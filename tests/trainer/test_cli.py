import subprocess
import sys
from pathlib import Path

import pytest

from inferry_trainer.cli import main


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferry_trainer.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_the_cli_starts_without_tensorflow() -> None:
    code = "import sys, inferry_trainer.cli; sys.exit(bool({'tensorflow', 'keras', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["export", "--help"]])
def test_help_goes_to_the_screen(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    assert "usage: inferry-train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["run", "minst", "--out", "x"], "'minst' (choose from"),
        (["run", "digits"], "--out"),
        (["run", "digits", "--out", "x", "--epochs", "many"], "--epochs: invalid int value: 'many'"),
        (["run", "mnist", "--out", "x", "--recipe", "great"], "--recipe: invalid choice: 'great'"),
        (["export", "x"], "--repository"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("inferry-train: error: ")
    assert message in line
    assert "--help" in line


def test_bad_input_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "digits", "--out", str(tmp_path / "run"), "--epochs", "0"]) == 1
    assert capsys.readouterr().err == "inferry-train: error: epochs is 0; expected 1 to 10000\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", [0, 4])
def test_verbose_shows_where_an_error_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int) -> None:
    arguments = ["export", str(tmp_path), "--repository", str(tmp_path / "models")]
    arguments.insert(place, "--verbose")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "inferry-train: error: " in error.splitlines()[-1]


def test_an_unexpected_error_is_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("inferry_trainer.workflow.export.export_run", fail)
    assert main(["export", str(tmp_path), "--repository", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "inferry-train: error: RuntimeError: two lines (--verbose shows where)\n"


def test_an_interruption_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inferry_trainer.workflow.run.train_run", interrupt)
    assert main(["run", "digits", "--out", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_real_export_speaks_only_in_its_own_lines(digits_run: Path, tmp_path: Path) -> None:
    done = run("export", digits_run, "--repository", tmp_path / "models", "--model", "seven")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "exported",
        "verified",
        "test accuracy",
        "latency",
        "published",
    ]
    assert (tmp_path / "models" / "seven" / "1" / "model.onnx").is_file()


def test_a_refused_run_speaks_in_one_line(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "digits", "--out", str(digits_run)]) == 1
    spoken = capsys.readouterr()
    assert spoken.out == ""
    assert spoken.err.count("\n") == 1
    assert "already holds a model" in spoken.err


@pytest.mark.parametrize("flags", [["--pixels", "-1-1"], ["--pixels=-1-1"]])
def test_a_value_that_begins_with_a_hyphen_is_taken_as_documented(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(tmp_path / "none.keras"), "--repository", str(tmp_path), "--labels", "a,b", *flags]
    assert main([*arguments, "--unverified"]) == 1
    assert "none.keras is not there" in capsys.readouterr().err
