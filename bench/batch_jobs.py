"""Batch jobs beside what users write by hand, and interactive callers beside a job: ratios of one run.

    make bench-batch                        # everything; half an hour on two quiet cores
    make bench-batch ARGS="--quick"         # that everything works; the figures mean little
    make bench-batch ARGS="mnist jpegs"     # some of: mnist, jpegs, beside, one

Contenders take turns for `--rounds`; medians are printed, and every round goes to runs/bench/batch.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from bench.batch_models import save_convolutions, write_mnist, write_photographs
from inferry_client import Client
from testkit.server_processes import server_processes

ROOT = Path(__file__).parents[1]
JOB = (sys.executable, "-m", "inferry_client", "batch")
CORES = len(os.sched_getaffinity(0))
_LOOK_S = 0.25  # between two looks at the memory of a job


@dataclass(frozen=True)
class Ran:
    """A process that ended well.

    Attributes:
        seconds: from its start to its end.
        peak_mb: of the memory that its processes had together.
        own_peak_mb: of that of the first of them.
        printed: what it said.
    """

    seconds: float
    peak_mb: float
    own_peak_mb: float
    printed: str


@dataclass
class Report:
    """What was measured, by name, round by round."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratio(self, one: str, other: str) -> float:
        """The median of each round's ratio."""
        return statistics.median(a / b for a, b in zip(self.rounds[one], self.rounds[other], strict=True))

    def say(self, line: str) -> None:
        print(line, flush=True)
        self.lines.append(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", help="mnist, jpegs, beside, one; none: all")
    parser.add_argument("--quick", action="store_true", help="few pictures, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    arguments = parser.parse_args()
    wanted = arguments.what or list(BENCHES)
    if unknown := set(wanted) - set(BENCHES):
        parser.error(f"{', '.join(sorted(unknown))} came; expected some of {', '.join(BENCHES)}")
    report, rounds = Report(), 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory(prefix="inferry-bench-") as folder:
        for name in wanted:
            BENCHES[name](Path(folder), report, rounds, arguments.quick)
    arguments.out.mkdir(parents=True, exist_ok=True)
    document = {"cores": CORES, "quick": arguments.quick, "rounds": report.rounds, "lines": report.lines}
    (arguments.out / "batch.json").write_text(json.dumps(document, indent=2) + "\n")
    return 0


def bench_mnist(folder: Path, report: Report, rounds: int, quick: bool) -> None:
    """PNG files of MNIST: our job with a server, in process, and a script with the SDK."""
    count = 3000 if quick else 60_000
    data = os.environ.get("INFERRY_DATA")
    idx = Path(data) / "mnist" / "train-images-idx3-ubyte.gz" if data else None
    write_mnist(folder / "digits", idx, count)
    version = save_convolutions(
        folder / "mnist", name="digits", side=28, channels=1, filters=(8, 16), strides=2, scaled=False
    )
    pictures = "MNIST's training images" if idx else "made-up digits ($INFERRY_DATA is not set)"
    report.say(f"mnist: {count} PNG files of {pictures}, {CORES} cores")
    with server_processes(folder / "mnist", 1) as (server,):
        for number in range(rounds):
            script = [sys.executable, "-m", "bench.batch_scripts.sdk", str(folder / "digits"), server.address, "digits"]
            for name, command in (
                ("mnist server", [*JOB, str(folder / "digits"), "--server", server.address]),
                ("mnist in process", [*JOB, str(folder / "digits"), "--onnx", str(version)]),
                ("mnist script", script),
            ):
                out = folder / f"{name}-{number}".replace(" ", "-")
                ran = run([*command, str(out)] if name == "mnist script" else [*command, "--out", str(out)])
                report.add(f"{name}, images/s", count / ran.seconds)
                report.add(f"{name}, peak MB", ran.peak_mb)
                report.add(f"{name}, peak MB of the first process", ran.own_peak_mb)
            same = parts(folder / f"mnist-server-{number}") == parts(folder / f"mnist-in-process-{number}")
            report.add("mnist same results", float(same))
    for name in ("mnist server", "mnist in process", "mnist script"):
        report.say(
            f"  {name}: {report.median(f'{name}, images/s'):.0f} images/s, at most "
            f"{report.median(f'{name}, peak MB'):.0f} MB in all its processes, "
            f"{report.median(f'{name}, peak MB of the first process'):.0f} MB in the first"
        )
    served = "mnist server, images/s"
    report.say(f"  server / in process: {report.ratio(served, 'mnist in process, images/s'):.2f} (at least 0.9)")
    report.say(f"  server / script: {report.ratio(served, 'mnist script, images/s'):.2f} (at least 1.5)")
    report.say(f"  the same bytes: {'yes' if min(report.rounds['mnist same results']) else 'NO'}")


def bench_jpegs(folder: Path, report: Report, rounds: int, quick: bool) -> None:
    """JPEGs of 500 x 375: our job in process, whole and scaled decoding, a script with a pool, Ray Data alone."""
    count = 400 if quick else 20_000
    write_photographs(folder / "photographs", count)
    versions = {
        scaled: save_convolutions(
            folder / f"jpegs-{scaled}",
            name="photos",
            side=224,
            channels=3,
            filters=(16, 32, 64),
            strides=2,
            scaled=scaled,
        )
        for scaled in (False, True)
    }
    model = str(versions[False] / "model.onnx")
    python = ray_python()
    report.say(f"jpegs: {count} JPEGs of 500 x 375 to 224 x 224, {CORES} cores")
    for number in range(rounds):
        for name, command in (
            ("jpegs ours", [*JOB, str(folder / "photographs"), "--onnx", str(versions[False])]),
            ("jpegs ours, scaled_jpeg", [*JOB, str(folder / "photographs"), "--onnx", str(versions[True])]),
            ("jpegs script", [sys.executable, "-m", "bench.batch_scripts.pool", str(folder / "photographs"), model]),
            (
                "jpegs Ray Data",
                [str(python), "-m", "bench.batch_scripts.ray_alone", str(folder / "photographs"), model],
            ),
        ):
            if name == "jpegs Ray Data" and python is None:
                continue
            out = folder / f"{name}-{number}".replace(" ", "-").replace(",", "")
            ran = run([*command, "--out", str(out)] if "ours" in name else [*command, str(out)])
            # Ray's own figure leaves out the start of the cluster, which others do not have
            seconds = float(ran.printed.splitlines()[-1]) if name == "jpegs Ray Data" else ran.seconds
            report.add(f"{name}, images/s", count / seconds)
    for name in ("jpegs ours", "jpegs ours, scaled_jpeg", "jpegs script", "jpegs Ray Data"):
        if (key := f"{name}, images/s") in report.rounds:
            median = report.median(key)
            ahead = report.ratio("jpegs ours, images/s", key)
            report.say(f"  {name}: {median:.0f} images/s, {median / CORES:.0f} for each core; ours / this: {ahead:.2f}")
    if python is None:
        report.say(
            "  Ray Data: not measured; name an interpreter that has ray[data] and onnxruntime: INFERRY_RAY_PYTHON"
        )


@dataclass(frozen=True)
class Callers:
    """Who asks a server for single pictures, whatever its answers take.

    Attributes:
        count: of them; they take turns.
        every_s: between two requests of each.
    """

    count: int
    every_s: float


def bench_beside(folder: Path, report: Report, rounds: int, quick: bool) -> None:
    """One caller after the other, single pictures, alone and beside a job that takes all it gets."""
    compare_beside(folder, report, rounds, quick, name="beside", callers=Callers(4, 0.04))


def bench_one(folder: Path, report: Report, rounds: int, quick: bool) -> None:
    """A caller of its own, as above."""
    compare_beside(folder, report, rounds, quick, name="one", callers=Callers(1, 0.01))


def compare_beside(folder: Path, report: Report, rounds: int, quick: bool, *, name: str, callers: Callers) -> None:
    """p99 of callers with and without a job, and the job's speed with and without callers, in turns."""
    count = 4000 if quick else 60_000
    seconds = 5.0 if quick else 30.0
    write_mnist(folder / f"job-{name}", None, count)
    save_convolutions(folder / name, name="digits", side=28, channels=1, filters=(8, 16), strides=2, scaled=False)
    report.say(
        f"{name}: a job of {count} pictures, {callers.count} callers with one picture every {callers.every_s * 1e3:g} "
        f"ms, {CORES} cores"
    )
    picture = (folder / f"job-{name}" / "00000.png").read_bytes()
    with server_processes(folder / name, 1) as (server,), Client(server.address) as client:
        ask = partial(client.classify, "digits", [picture])
        ask()  # on a connection: a window of a few hundred requests would have p99 of those that begin one
        for number in range(rounds):
            command = [*JOB, str(folder / f"job-{name}"), "--server", server.address, "--out"]
            alone = run([*command, str(folder / f"{name}-alone-{number}")])
            report.add(f"{name} job alone, images/s", count / alone.seconds)
            latencies = call(ask, lambda: False, seconds, callers)
            report.add(f"{name} p99 alone, ms", statistics.quantiles(latencies, n=100)[-1])
            latencies, seconds_both = call_beside([*command, str(folder / f"{name}-both-{number}")], ask, callers)
            report.add(f"{name} p99 with the job, ms", statistics.quantiles(latencies, n=100)[-1])
            report.add(f"{name} longest with the job, ms", max(latencies))
            report.add(f"{name} requests with the job", len(latencies))
            report.add(f"{name} job with callers, images/s", count / seconds_both)
    report.say(
        f"  p99 of callers: {report.median(f'{name} p99 alone, ms'):.1f} ms alone, "
        f"{report.median(f'{name} p99 with the job, ms'):.1f} ms beside the job: "
        f"{report.ratio(f'{name} p99 with the job, ms', f'{name} p99 alone, ms'):.2f} (at most 1.5)"
    )
    report.say(
        f"  the longest of {sum(report.rounds[f'{name} requests with the job']):.0f} requests beside the job: "
        f"{max(report.rounds[f'{name} longest with the job, ms']):.1f} ms"
    )
    report.say(
        "  the job with callers / alone: "
        f"{report.ratio(f'{name} job with callers, images/s', f'{name} job alone, images/s'):.2f} (at least 0.7)"
    )


def call_beside(command: list[str], ask: Callable[[], object], callers: Callers) -> tuple[list[float], float]:
    """Latencies in ms of callers beside a job, from its start to its end, and the seconds that the job took."""
    started, ended = time.monotonic(), []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:

        def wait() -> None:
            job.wait()
            ended.append(time.monotonic())

        watching = threading.Thread(target=wait)
        watching.start()
        latencies = call(ask, lambda: bool(ended), 3600.0, callers)
        watching.join()
    if job.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {job.returncode}")
    return latencies, ended[0] - started


def call(ask: Callable[[], object], over: Callable[[], bool], seconds: float, callers: Callers) -> list[float]:
    """Latencies in ms of callers, who ask, until it is over or so many seconds passed."""
    latencies: list[float] = []
    every_s = callers.every_s
    first_at = time.monotonic()
    ends_at = first_at + seconds

    def keep_asking(due: float) -> None:
        while not over() and due < ends_at:
            time.sleep(max(0.0, due - time.monotonic()))
            sent = time.monotonic()
            ask()
            now = time.monotonic()
            latencies.append(1000 * (now - sent))
            due += every_s * max(1, -(-(now - due) // every_s))

    with ThreadPoolExecutor(callers.count) as pool:
        asking = [
            pool.submit(keep_asking, first_at + index * every_s / callers.count) for index in range(callers.count)
        ]
        for each in asking:
            each.result()
    return latencies


def run(command: list[str]) -> Ran:
    """Run a process to its end, and watch its memory and that of its children."""
    peak = own = 0.0
    started = time.monotonic()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("", "tests", "clients", "proto")),
        "PYTHONPYCACHEPREFIX": str(ROOT / "runs" / "bench" / "bytecode"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs are compiled when they start
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with subprocess.Popen(command, stdout=out, stderr=err, env=environment, cwd=ROOT) as process:
            while process.poll() is None:
                first, everybody = memory_mb(process.pid)
                own, peak = max(own, first), max(peak, everybody)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)  # a look walks through all of the pages
        seconds = time.monotonic() - started
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {err.read()[-2000:]}")
        return Ran(seconds, peak, own, out.read())


def memory_mb(pid: int) -> tuple[float, float]:
    """Memory of a process, and of it and its descendants together.

    A page that several processes share counts once: each of them has its part of it (PSS).
    """
    try:
        process = psutil.Process(pid)
        first = process.memory_full_info().pss
        total = first
        for child in process.children(recursive=True):
            try:
                total += child.memory_full_info().pss
            except psutil.Error:  # it ended meanwhile
                continue
    except psutil.Error:
        return 0.0, 0.0
    return first / 1e6, total / 1e6


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("part-*")}


def ray_python() -> Path | None:
    """An interpreter that has Ray: the one named, or the one that the slow tests made."""
    if named := os.environ.get("INFERRY_RAY_PYTHON"):
        return Path(named)
    cache = Path(os.environ.get("INFERRY_BENCH_CACHE", Path.home() / ".cache" / "inferry-bench"))
    found = cache / f"ray-{sys.version_info[0]}.{sys.version_info[1]}" / "bin" / "python"
    return found if found.exists() else None


BENCHES: dict[str, Callable[[Path, Report, int, bool], Any]] = {
    "mnist": bench_mnist,
    "jpegs": bench_jpegs,
    "beside": bench_beside,
    "one": bench_one,
}

if __name__ == "__main__":
    sys.exit(main())
