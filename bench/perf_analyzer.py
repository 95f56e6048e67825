"""Triton's load generator: the last published program, in an environment of its own."""

import csv
import ctypes
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import MODEL, Running
from bench.environments import environment, site_packages

_WINDOWS, _SPARE_S = 5, 60.0  # at most so many windows; to start, and for its last answers
_STABLE_PERCENT, _ANY_PERCENT = 60, 1000  # how far windows may differ; if they do, whatever comes
_UNSTABLE = "Failed to obtain stable measurement"


class LoadFailedError(Exception):
    """A load generator that did not come to an end in order; the message ends with what it said."""


class ProgramUnavailableError(LoadFailedError):
    """A load generator that this machine cannot run."""


@dataclass(frozen=True)
class Program:
    """perf_analyzer, installed: its file, and the environment variables it runs with."""

    path: Path
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """What a load generator reports; perf_analyzer of its last windows, and no 99.9th percentile."""

    images_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float | None = None


def installed_program() -> Program:
    """The program, installed if need be.

    Raises:
        ProgramUnavailableError: a library that it is linked to is not there.
        EnvironmentFailedError: pip could not install it.
    """
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError as error:
        raise ProgramUnavailableError(
            "perf_analyzer needs libb64.so.0d; on Debian: apt-get install libb64-0d"
        ) from error
    made = environment("perf_analyzer")
    libraries = site_packages(made) / "nvidia" / "cuda_runtime" / "lib"
    return Program(made / "bin" / "perf_analyzer", os.environ | {"LD_LIBRARY_PATH": str(libraries)})


def analyze(server: Running, *, concurrency: int, rows: int, streaming: bool, window_s: float) -> Measured:
    """Run perf_analyzer until its figures are stable within 60 %, for five windows at most.

    Where it finds nothing stable it runs once more and takes what it gets: one restless moment must not end a run, and
    the spread over the rounds shows it.

    Raises:
        LoadFailedError: it failed or did not end.
    """
    program = installed_program()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "out.csv"
        command = [str(program.path), "-m", MODEL, "-u", server.address, "-i", "grpc", "--async"]
        command += ["--concurrency-range", str(concurrency), "-b", str(rows), "-f", str(table)]
        command += ["-r", str(_WINDOWS), "-p", str(round(window_s * 1e3))]
        command += ["--streaming"] if streaming else []
        for percent in (_STABLE_PERCENT, _ANY_PERCENT):
            timeout_s = _WINDOWS * window_s * 4 + _SPARE_S
            status, said = _run([*command, "-s", str(percent)], program.variables, timeout_s=timeout_s)
            if status == 0:
                return read_table(table.read_text())
            if _UNSTABLE not in said:
                break
    raise LoadFailedError(f"perf_analyzer ended with {status}: {said[-2000:]}")


def _run(command: list[str], variables: Mapping[str, str], *, timeout_s: float) -> tuple[int, str]:
    try:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise LoadFailedError(f"perf_analyzer did not end within {error.timeout:g} s") from error
    return done.returncode, done.stdout + done.stderr


def read_table(text: str) -> Measured:
    """From the CSV it writes.

    Raises:
        LoadFailedError: the table has no row.
    """
    rows = list(csv.DictReader(text.strip().splitlines()))
    if not rows:
        raise LoadFailedError(f"perf_analyzer measured nothing: {text!r}")
    row = rows[-1]
    return Measured(float(row["Inferences/Second"]), float(row["p50 latency"]) / 1e3, float(row["p99 latency"]) / 1e3)
