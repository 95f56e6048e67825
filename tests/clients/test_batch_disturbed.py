"""Whatever disturbs a job - kills, a server restarted, a full disk -, its output has the bytes of an undisturbed one.

Slow: each disturbance begins a process anew.
"""

import contextlib
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from testkit import brightness_model
from testkit.onnx_models import save_brightness
from testkit.server_processes import server_processes

pytestmark = pytest.mark.slow

PICTURES = 600
TIMEOUT_S = 120


def make_inputs(folder: Path) -> dict[str, Path]:
    """The same pictures in a folder, a tar archive and a Parquet file; some of them are none."""
    paths = brightness_model.write_pictures(folder / "in", PICTURES)
    for number in range(0, PICTURES, 97):
        paths[number].write_bytes(b"no picture")
    with tarfile.open(folder / "pictures.tar", "w") as archive:
        for path in paths:
            archive.add(path, path.name)
    pq.write_table(pa.table({"image": [path.read_bytes() for path in paths]}), folder / "pictures.parquet")
    return {"folder": folder / "in", "tar": folder / "pictures.tar", "parquet": folder / "pictures.parquet"}


def command(source: Path, out: Path, *options: object) -> list[str]:
    program = [sys.executable, "-m", "inferry_client", "batch", str(source), "--out", str(out)]
    return [*program, "--part-size=12", "--batch-size=4", *map(str, options)]


def outcome(out: Path) -> dict[str, bytes]:
    kept = ("part-", "errors.csv", "_SUCCESS", "_plan.json")
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name.startswith(kept)}


def undisturbed(source: Path, out: Path, *options: object) -> dict[str, bytes]:
    subprocess.run(command(source, out, *options), capture_output=True, check=True, timeout=TIMEOUT_S)
    found = outcome(out)
    assert len(found) == PICTURES // 12 + 3
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_brightness(tmp_path_factory.mktemp("repository"), side=8)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
@pytest.mark.parametrize("decoders", [0, 1])
def test_sigkill_at_twenty_random_moments_changes_no_byte(
    model: Path, inputs: dict[str, Path], tmp_path: Path, kind: str, decoders: int
) -> None:
    options = ("--onnx", model, "--decoders", decoders)
    expected = undisturbed(inputs[kind], tmp_path / "undisturbed", *options)
    words, out = command(inputs[kind], tmp_path / "out", *options), tmp_path / "out"
    moments, reached = random.Random(f"{kind}{decoders}"), []
    for kill in range(20):
        if (out / "_SUCCESS").exists():
            _forget_receipts(out, moments.randrange(10, 45))  # so that there is something left to interrupt
        done = _count(out / "_receipts")
        parts = PICTURES // 12
        after = (0, moments.randrange(1, 10), moments.randrange(1, 10), parts - done)[kill % 4]
        wait_s = moments.uniform(0, 3) if after == 0 else moments.choice([0.0, moments.uniform(0, 0.02)])
        reached.append(_run_and_kill(words, out, done + after, wait_s) - done)
    finished = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert finished.returncode == 0, finished.stderr
    assert outcome(out) == expected
    assert len(set(reached)) >= 4, reached
    assert not list(out.rglob("*.writing"))


def _count(receipts: Path) -> int:
    return len(list(receipts.glob("part-*.json"))) if receipts.is_dir() else 0


def _forget_receipts(out: Path, count: int) -> None:
    for receipt in sorted((out / "_receipts").glob("part-*.json"))[-count:]:
        receipt.unlink()


def _run_and_kill(words: list[str], out: Path, least: int, wait_s: float) -> int:
    """Kill a job a moment after it has so many receipts, or has ended; to how many there are then."""
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while _count(out / "_receipts") < least and process.poll() is None:
            time.sleep(0.0005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.kill()
    return _count(out / "_receipts")


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_a_server_killed_and_restarted_thrice_changes_no_byte(
    model: Path, inputs: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    with server_processes(model.parents[1], 1) as (server,):
        options = ("--server", server.address, "--workers", 2)
        expected = undisturbed(inputs[kind], tmp_path / "undisturbed", *options)
        out = tmp_path / "out"
        with subprocess.Popen(
            command(inputs[kind], out, *options), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as job:
            for least in (5, 15, 30):
                while len(list(out.glob("part-*"))) < least and job.poll() is None:
                    time.sleep(0.001)
                assert job.poll() is None
                server.kill()
                server.start()
            _, err = job.communicate(timeout=TIMEOUT_S)
        assert job.returncode == 0, err
    assert outcome(out) == expected


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_a_disk_that_fills_and_has_room_again_changes_no_byte(
    model: Path, inputs: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    options = ("--onnx", model, "--decoders", 0)
    expected = undisturbed(inputs[kind], tmp_path / "undisturbed", *options)
    with _small_disk(tmp_path / "disk", kilobytes=180) as (disk, grow):
        full = 0
        for _ in range(20):
            done = subprocess.run(
                command(inputs[kind], disk / "out", *options), capture_output=True, text=True, timeout=TIMEOUT_S
            )
            if done.returncode == 0:
                break
            assert done.returncode == 1, done.stderr
            assert "No space left on device" in done.stderr
            assert "Traceback" not in done.stderr
            assert not list(disk.rglob("*.writing"))
            full += 1
            grow()
        assert full >= 2
        assert outcome(disk / "out") == expected


@contextlib.contextmanager
def _small_disk(folder: Path, *, kilobytes: int) -> Iterator[tuple[Path, Any]]:
    """A file system in memory that has room for little, and a call that gives it some more."""
    folder.mkdir()
    size = kilobytes
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k,nr_inodes=2000", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")

    def grow() -> None:
        nonlocal size
        size += kilobytes
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(folder)], check=True)

    try:
        yield folder, grow
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_sigterm_and_sigkill_of_two_jobs_for_one_folder_change_no_byte(
    model: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--onnx", model, "--decoders", 0)
    expected = undisturbed(inputs["folder"], tmp_path / "undisturbed", *options)
    moments, ended = random.Random(5), set()
    lock = threading.Lock()

    def work(seed: int) -> None:
        own = random.Random(seed)
        for _ in range(6):
            with subprocess.Popen(
                command(inputs["folder"], tmp_path / "out", *options),
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            ) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(own.uniform(0.3, 4))
                process.send_signal(own.choice([signal.SIGTERM, signal.SIGKILL, signal.SIGINT]))
                with lock:
                    ended.add(process.wait(TIMEOUT_S))

    threads = [threading.Thread(target=work, args=(moments.randrange(100),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    subprocess.run(
        command(inputs["folder"], tmp_path / "out", *options), capture_output=True, check=True, timeout=TIMEOUT_S
    )
    assert outcome(tmp_path / "out") == expected
    assert ended <= {0, 1, 75, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
