"""What `bench.gpu_check` found: rows as they come, and one table of them."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CHECKS = {"instance": ("answers", "steps", "memory"), "server": ("golden",)}
"""What is shown beside which speed."""


@dataclass
class Report:
    """What was found. A row has a state: ok, FAILED, measured, or no GPU.

    Attributes:
        machine: what was measured on.
        rows: in the order in which they came.
        path: written anew with every row, so that a run that is cut off keeps what it measured; None: nowhere.
    """

    machine: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    path: Path | None = None

    def add(self, what: str, model: str, mode: str, state: str, **figures: Any) -> None:
        """Note one row; on standard error, so that whoever waits sees something."""
        row = {"what": what, "model": model, "mode": mode, "state": state, **figures}
        self.rows.append(row)
        self._write()
        print(f"{what:<22}{model:<18}{mode:<16}{state:<10}{_figures(figures)}", file=sys.stderr)

    def check(self, what: str, model: str, mode: str, holds: bool, **figures: Any) -> None:
        """Note something that must hold."""
        self.add(what, model, mode, "ok" if holds else "FAILED", **figures)

    def _write(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps({"machine": self.machine, "rows": self.rows}, indent=2) + "\n")
        beside.replace(self.path)

    @property
    def failed(self) -> int:
        """Checks that did not hold."""
        return sum(row["state"] == "FAILED" for row in self.rows)


def print_table(report: Report, sizes: Sequence[int]) -> None:
    """A line for each model and way to compute it: images/s, and p50 and p99 in ms, of each request size."""
    print(f"\n{'':<18}{'':<20}{'':<16}" + "".join(f"{f'{rows} images':>26}" for rows in sizes) + "  checks")
    speeds = [row for row in report.rows if "images_per_s" in row]
    bare = {(row["model"], row["images"]): row["images_per_s"] for row in speeds if row["what"] == "bare session"}
    lines = dict.fromkeys((row["model"], row["what"], row["mode"]) for row in speeds)
    for model, what, mode in lines:
        cells = ""
        for row in speeds:
            if (row["model"], row["what"], row["mode"]) != (model, what, mode):
                continue
            cell = f"{row['images_per_s']:,.0f} ({row['p50_ms']:.2f} {row['p99_ms']:.2f})"
            if what != "bare session" and (model, row["images"]) in bare:
                cell += f" x{row['images_per_s'] / bare[model, row['images']]:.2f}"
            cells += f"{cell:>26}"
        names = CHECKS.get(what, ())
        checks = [row for row in report.rows if row["what"] in names and (row["model"], row["mode"]) == (model, mode)]
        states = ", ".join(f"{row['what']} {row['state']}" for row in checks)
        mine = [row for row in speeds if (row["model"], row["what"], row["mode"]) == (model, what, mode)]
        mixed = [row["mixed_images_per_s"] for row in checks if "mixed_images_per_s" in row]
        states += f"  mixed {mixed[0]:,.0f}/s" if mixed else ""
        busy = [row["gpu_busy_percent"] for row in mine if "gpu_busy_percent" in row]
        states += f"  GPU busy {'/'.join(f'{each:.0f}' for each in busy)} %" if busy else ""
        sent = [row["to_device_mb_per_s"] for row in mine if "to_device_mb_per_s" in row]
        states += f"  to the device {'/'.join(f'{each:,.0f}' for each in sent)} MB/s" if sent else ""
        print(f"{model:<18}{what:<20}{mode:<16}{cells}  {states}")
    for row in report.rows:
        if row["state"] in ("FAILED", "no GPU") or row["what"] in ("cold start", "steps"):
            figures = {key: row[key] for key in row if key not in ("what", "model", "mode", "state")}
            print(f"{row['model']:<18}{row['what']:<20}{row['mode']:<16}{row['state']} {_figures(figures)}")


def add_speed(
    report: Report, what: str, model: str, mode: str, rows: int, times: Sequence[float], *,
    wall_s: float | None = None, **figures: float,
) -> None:  # fmt: skip
    """Note how fast batches of so many rows were: `times` in seconds, one after the other unless `wall_s` is given."""
    p50, p99 = (float(each) * 1e3 for each in np.percentile(times, [50, 99]))
    speed = {"images": rows, "images_per_s": len(times) * rows / (wall_s or sum(times)), "p50_ms": p50, "p99_ms": p99}
    report.add(what, model, mode, "measured", **speed, **figures)


def _figures(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_figure(value)}" for key, value in figures.items())


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        return "/".join(_figure(part) for part in value.values())
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1e3 else (
        f"{value:,.0f}" if isinstance(value, float) else str(value)
    )  # fmt: skip
