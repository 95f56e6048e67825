"""Load put on a running server, and what it cost the server."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench.contenders import Counts, Running
from bench.load_generator import Job, LoadResult
from bench.perf_analyzer import LoadFailedError, Measured, analyze
from bench.processes import cpu_s, resident_mb
from bench.samples import BareCosts, Overload, Sample, beyond_us

_SPARE_S = 60.0


def around(server: Running, load: Callable[[], Measured], costs: BareCosts) -> Sample:
    """Run a load; what the server computed and what CPU it took are read before and after.

    Raises:
        LoadFailedError: the server computed nothing.
    """
    counts, cpu = server.counts(), cpu_s(server.process)
    measured = load()
    cpu, done = cpu_s(server.process) - cpu, server.counts() - counts
    if not done.rows:
        raise LoadFailedError(f"the server at {server.address} computed nothing")
    cpu_us, rows = cpu / done.rows * 1e6, done.rows / done.batches
    return Sample(
        images_per_s=measured.images_per_s,
        cpu_us=cpu_us,
        rows=rows,
        beyond_us=beyond_us(cpu_us, rows, costs),
        p50_ms=measured.p50_ms,
        p99_ms=measured.p99_ms,
        p999_ms=measured.p999_ms,
    )


def by_perf_analyzer(
    server: Running, costs: BareCosts, *, concurrency: int, rows: int = 1, streaming: bool = False, window_s: float
) -> Sample:
    """Requests from perf_analyzer."""
    return around(
        server,
        lambda: analyze(server, concurrency=concurrency, rows=rows, streaming=streaming, window_s=window_s),
        costs,
    )


def by_common_client(server: Running, costs: BareCosts, job: Job, *, rows: int = 1) -> Sample:
    """Requests from the common client; each must be answered.

    Raises:
        LoadFailedError: some were refused.
    """

    def load() -> Measured:
        result = generate(job)
        if result.answered < result.sent:
            raise LoadFailedError(f"{result.sent - result.answered} of {result.sent} requests were refused")
        return Measured(result.answered * rows / result.wall_s, result.p50_ms, result.p99_ms, result.p999_ms)

    return around(server, load, costs)


def by_locust(server: Running, costs: BareCosts, *, users: int, seconds: int) -> Sample:
    """Requests from `inferry load`, as users run it.

    Raises:
        LoadFailedError: requests failed.
    """

    def load() -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "load.json"
            command = [sys.executable, "-m", "inferry_client", "load", "--server", server.address, "--model", "mnist"]
            command += ["--users", str(users), "--duration", f"{seconds}s", "--json", str(target)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 3 * _SPARE_S)
            if done.returncode != 0:
                raise LoadFailedError(f"inferry load ended with {done.returncode}: {done.stderr[-2000:]}")
            figures = json.loads(target.read_text())
        return Measured(figures["requests_per_second"], figures["p50_ms"], figures["p99_ms"])

    return around(server, load, costs)


def overload(server: Running, job: Job, *, peak_per_s: float, counts: Callable[[], Counts] | None = None) -> Overload:
    """An open loop; requests may be refused.

    Args:
        server: under load.
        job: with a rate and an objective.
        peak_per_s: answers a second that the server reached just before, in a closed loop.
        counts: what the scripted device computed so far, where there is one.
    """
    before, began, memory = counts() if counts else None, server.counts(), resident_mb(server.process)
    result = generate(job)
    after, done = counts() if counts else None, server.counts() - began
    return Overload(
        peak_per_s=peak_per_s,
        offered_per_s=result.sent / result.wall_s,
        useful_per_s=result.useful / result.wall_s,
        late_per_s=(result.answered - result.useful) / result.wall_s,
        accepted_p99_ms=result.p99_ms,
        rows=done.rows / done.batches if done.batches else None,
        expired=(after - before).expired if after and before else None,
        growth_mb=resident_mb(server.process) - memory,
        behind_ms=result.behind_ms,
    )


def generate(job: Job) -> LoadResult:
    """Run the common client in a process of its own.

    Raises:
        LoadFailedError: it failed or did not end.
    """
    command = [sys.executable, "-m", "bench.load_generator"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False,
            timeout=job.seconds + _SPARE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise LoadFailedError(f"the load generator did not end within {error.timeout:g} s") from error
    if done.returncode != 0:
        raise LoadFailedError(f"the load generator failed: {done.stderr[-2000:]}")
    return LoadResult(**json.loads(done.stdout))
