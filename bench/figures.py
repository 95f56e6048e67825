"""`make figures`: train the recipes whose accuracy the trainer's README states, and write its table.

Every run has a folder of its own under `runs/figures`. One that is finished is kept, one that was
interrupted goes on where it was, so this may be stopped and started at any time.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_FOLDER = _ROOT / "runs" / "figures"
_README = _ROOT / "trainer" / "README.md"
_BEGIN, _END = "<!-- figures: written by `make figures` -->", "<!-- end of figures -->"


@dataclass(frozen=True)
class Planned:
    """A run whose accuracy is stated."""

    dataset: str
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.dataset}-{self.recipe}-seed{self.seed}"


PLAN = (
    *(Planned("mnist", "chapter", seed) for seed in (1, 2, 3)),
    Planned("mnist", "best", 1),
    Planned("fashion-mnist", "best", 1),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, print the table, put it into the README; returns the exit status."""
    parser = argparse.ArgumentParser(prog="figures", description=__doc__.splitlines()[0])
    parser.add_argument("--only-table", action="store_true", help="train nothing: write what is finished")
    chosen = parser.parse_args(arguments)
    for planned in () if chosen.only_table else PLAN:
        if not is_finished(_FOLDER / planned.name) and (status := train(command(planned, _FOLDER))):
            return status
    table = render_table([(run, read_run(_FOLDER / run.name)) for run in PLAN if is_finished(_FOLDER / run.name)])
    print(table)
    write_between_markers(_README, table)
    return 0


def train(arguments: Sequence[str]) -> int:
    """Run a training; its exit status. It says itself what went wrong, and how it was interrupted."""
    with subprocess.Popen(arguments) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the training was interrupted too: both are asked by the terminal


def is_finished(folder: Path) -> bool:
    """The model is what a run writes last."""
    return (folder / "model.keras").exists()


def command(run: Planned, parent: Path) -> list[str]:
    """What starts a run, or goes on with it."""
    folder = parent / run.name
    started = (folder / "checkpoint" / "state.npz").exists()
    names = [run.dataset, "--recipe", run.recipe, "--seed", str(run.seed), "--out", str(folder)]
    return [sys.executable, "-m", "inferry_trainer.cli", "run", *names, *(["--resume"] if started else [])]


def read_run(folder: Path) -> dict[str, Any]:
    """What a finished run says of itself: its metrics, its `config` and the `machine`."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {**metrics, "config": description["config"], "machine": description.get("machine", "")}


def render_table(runs: Iterable[tuple[Planned, dict[str, Any]]]) -> str:
    """A Markdown table: a row for each data set and recipe, means over its seeds."""
    rows, machines = [], set()
    for (dataset, recipe), group in groupby(runs, key=lambda item: (item[0].dataset, item[0].recipe)):
        figures = [figures for _, figures in group]
        machines |= {each["machine"] for each in figures}
        rows.append(
            f"| {dataset} | {recipe} | {figures[0]['config']['epochs']} | {len(figures)} | {_accuracy(figures)} | "
            f"{_minutes(figures, 'train_wall_s')} | {_minutes(figures, 'train_cpu_s')} |"
        )
    head = "| data set | recipe | epochs | seeds | test accuracy: mean (range) | wall min a run | CPU min a run |"
    where = "; ".join(sorted(machines - {""})) or "not recorded"
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- | --- |", *rows, "", f"Machine: {where}."])


def write_between_markers(path: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        ValueError: the markers are not there.
    """
    before, found, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, closed, after = rest.partition(_END)
    if not (found and closed):
        raise ValueError(f"{path} has no place for the figures; expected {_BEGIN} and {_END}")
    path.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")


def _accuracy(figures: list[dict[str, Any]]) -> str:
    values = [each["test_accuracy"] for each in figures]
    if len(values) == 1:
        return f"{values[0]:.2%}"
    return f"{mean(values):.2%} ({min(values):.2%} to {max(values):.2%})"


def _minutes(figures: list[dict[str, Any]], name: str) -> str:
    return f"{mean(each[name] for each in figures) / 60:.0f}"


if __name__ == "__main__":
    sys.exit(main())
