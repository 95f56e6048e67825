import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.figures import PLAN, Planned, command, is_finished, read_run, render_table, train, write_between_markers


def figures(accuracy: float, *, machine: str = "two cores") -> dict[str, Any]:
    return {
        "test_accuracy": accuracy,
        "train_wall_s": 660.0,
        "train_cpu_s": 1_200.0,
        "config": {"epochs": 20},
        "machine": machine,
    }


def test_the_plan_is_the_chapter_three_times_and_ours() -> None:
    assert [run.name for run in PLAN] == [
        "mnist-chapter-seed1",
        "mnist-chapter-seed2",
        "mnist-chapter-seed3",
        "mnist-best-seed1",
        "fashion-mnist-best-seed1",
    ]


def test_a_finished_run_is_kept_and_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    run = Planned("mnist", "best", 1)
    assert not is_finished(tmp_path / run.name)
    assert "--resume" not in command(run, tmp_path)
    (tmp_path / run.name / "checkpoint").mkdir(parents=True)
    (tmp_path / run.name / "checkpoint" / "state.npz").touch()
    assert command(run, tmp_path)[-1] == "--resume"
    (tmp_path / run.name / "model.keras").touch()
    assert is_finished(tmp_path / run.name)


def test_a_training_that_fails_ends_the_figures_with_its_status() -> None:
    assert train([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_the_table_has_mean_and_spread_of_the_seeds() -> None:
    runs = [(run, figures(accuracy)) for run, accuracy in zip(PLAN, (0.9919, 0.9923, 0.9921, 0.9962), strict=False)]
    lines = render_table(runs).splitlines()
    assert lines[2] == "| mnist | chapter | 20 | 3 | 99.21% (99.19% to 99.23%) | 11 | 20 |"
    assert lines[3] == "| mnist | best | 20 | 1 | 99.62% | 11 | 20 |"
    assert lines[-1] == "Machine: two cores."


def test_a_runs_figures_are_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"test_accuracy": 0.5}))
    (tmp_path / "config.json").write_text(json.dumps({"config": {"epochs": 2}}))
    assert read_run(tmp_path) == {"test_accuracy": 0.5, "config": {"epochs": 2}, "machine": ""}


def test_the_table_takes_its_place_in_the_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- figures: written by `make figures` -->\nold\n<!-- end of figures -->\nafter\n")
    for _ in range(2):
        write_between_markers(readme, "new")
    assert readme.read_text() == (
        "before\n<!-- figures: written by `make figures` -->\n\nnew\n\n<!-- end of figures -->\nafter\n"
    )
    readme.write_text("no place")
    with pytest.raises(ValueError, match="has no place for the figures"):
        write_between_markers(readme, "new")
