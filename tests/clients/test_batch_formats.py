"""Part files say the same in every format, and a job that is killed leaves the bytes of one that is not."""

import csv
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from inferry_client.batch import files
from testkit import brightness_model
from testkit.batch_jobs import files_of, run_batch
from testkit.scripted_server import ScriptedServer


def test_every_format_holds_the_same_answers(brightness_server: ScriptedServer, tmp_path: Path) -> None:
    brightness_model.write_pictures(tmp_path / "in", 15)
    (tmp_path / "in" / 'a "quoted",\nname.png').write_bytes(brightness_model.picture(9))
    for output in ("parquet", "csv", "jsonl"):
        run_batch(brightness_server, tmp_path / "in", tmp_path / output, output=output, top_k=2, all_probabilities=True)
    parts = [f"part-{part:05}" for part in range(2)]
    expected = [row for part in parts for row in pq.read_table(tmp_path / "parquet" / f"{part}.parquet").to_pylist()]
    assert len(expected) == 16
    assert all(row["top_labels"][0] == row["label"] and len(row["top_probabilities"]) == 2 for row in expected)
    lines = [line for part in parts for line in (tmp_path / "jsonl" / f"{part}.jsonl").read_text().splitlines()]
    assert [_as_float32(json.loads(line)) for line in lines] == [_as_float32(row) for row in expected]
    rows: list[dict[str, Any]] = []
    for part in parts:
        with (tmp_path / "csv" / f"{part}.csv").open(newline="", encoding="utf-8") as file:
            rows += csv.DictReader(file)
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    assert [json.loads(row["top_indexes"]) for row in rows] == [row["top_indexes"] for row in expected]


def _as_float32(value: Any) -> Any:
    """With every float as the nearest one of 32 bits."""
    if isinstance(value, dict):
        return {key: _as_float32(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_float32(item) for item in value]
    return np.float32(value) if isinstance(value, float) else value


class _CrashError(BaseException):
    """What stands for the end of a process."""


def test_a_crash_at_any_step_of_writing_leaves_a_job_that_resumes_to_the_same_bytes(
    brightness_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 22)
    (tmp_path / "in" / "0007.png").write_bytes(b"no picture")
    run_batch(brightness_server, tmp_path / "in", tmp_path / "undisturbed")
    expected, steps = files_of(tmp_path / "undisturbed"), 0
    fsync, replace = os.fsync, Path.replace

    def step() -> None:
        nonlocal steps
        steps -= 1
        if steps == 0:
            raise _CrashError

    def sync(descriptor: int) -> None:
        step()
        fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        renamed = replace(self, target)
        step()
        return renamed

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr(files, "sync_folder", lambda _: step())
    crashes = 0
    for at in range(1, 100, 2):
        steps, out = at, tmp_path / f"out{at}"
        try:
            run_batch(brightness_server, tmp_path / "in", out)
        except _CrashError:
            crashes += 1
            steps = -1
            run_batch(brightness_server, tmp_path / "in", out)
        assert files_of(out) == expected
        if steps > 0:
            break
    assert crashes >= 10


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_job_killed_at_random_moments_ends_with_the_bytes_of_one_that_was_not(
    brightness_server: ScriptedServer, tmp_path: Path, kills: int
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 60)
    (tmp_path / "in" / "0033.png").write_bytes(b"no picture")
    run_batch(brightness_server, tmp_path / "in", tmp_path / "undisturbed", part_size=5, batch_size=2)
    arguments = ["batch", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--server", brightness_server.address]
    command = [sys.executable, "-m", "inferry_client", *arguments, "--batch-size=2", "--part-size=5", "--decoders=0"]
    moments, reached = random.Random(kills), threading.Event()
    left = 0

    def count(request: Any) -> Any:
        nonlocal left
        left -= 1
        if left <= 0:
            reached.set()
        return brightness_model.infer(request)

    brightness_server.scripts["ModelInfer"] = count
    for _ in range(kills):
        left = moments.randrange(1, 16)
        reached.clear()
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while not reached.wait(0.05) and process.poll() is None:
                pass
            process.kill()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "undisturbed")
