"""Open loops above what a server can do: what is still useful, and what is computed in vain."""

from pathlib import Path

import numpy as np

from bench.contenders import SHAPE, Counts, Running
from bench.load_generator import Job
from bench.measure import generate, overload
from bench.samples import Overload
from bench.workloads import OBJECTIVE, OBJECTIVE_MS, SCRIPTED, TRITON_TIMEOUT
from inferry_proto.services import OPEN_INFERENCE

SCRIPTED_TIMES, MODEL_TIMES = 3.0, 2.0
DEVICE = f"scripted device, {SCRIPTED_TIMES:g} x peak"
NETWORK = f"MNIST network, {MODEL_TIMES:g} x peak"
_PEAK_CONCURRENCY, _MODEL_CONCURRENCY = 64, 32  # a full batch runs while the next one waits
_PATIENCE_S = 20
_PIXELS = int(np.prod(SHAPE))


def overload_round(
    servers: dict[str, Running],
    requests: dict[str, Path],
    folder: Path,
    *,
    seconds: float,
    model_s: float,
    peak_s: float,
) -> dict[tuple[str, str], Overload]:
    """Every open loop once, each after a closed one that finds the peak.

    Args:
        servers: by name; those that were left out are passed over.
        requests: from `write_requests`.
        folder: of the scripted device's counts.
        seconds: of the scripted device's open loop.
        model_s: of the real network's.
        peak_s: of a closed loop.
    """
    path, blank = OPEN_INFERENCE["ModelInfer"].path, requests["blank"]
    stamp_at = blank.stat().st_size - _PIXELS
    done = {}
    for workload, name, times, concurrency, open_s in (
        (DEVICE, SCRIPTED, SCRIPTED_TIMES, _PEAK_CONCURRENCY, seconds),
        (NETWORK, OBJECTIVE, MODEL_TIMES, _MODEL_CONCURRENCY, model_s),
        (NETWORK, TRITON_TIMEOUT, MODEL_TIMES, _MODEL_CONCURRENCY, model_s),
    ):
        if name not in servers:
            continue
        port = servers[name].port
        # With a deadline of their own they have none of the server's, so nothing is refused.
        closed = generate(Job(port, path, str(blank), peak_s, concurrency, timeout_s=_PATIENCE_S))
        peak = closed.answered / closed.wall_s
        scripted = name == SCRIPTED
        job = Job(
            port, path, str(blank), open_s, rate=max(1.0, times * peak), objective_ms=OBJECTIVE_MS,
            stamp_at=stamp_at if scripted else -1,
        )  # fmt: skip
        counts = (lambda: scripted_counts(folder)) if scripted else None
        done[(workload, name)] = overload(servers[name], job, peak_per_s=peak, counts=counts)
    return done


def scripted_counts(folder: Path) -> Counts:
    """What the scripted device has computed so far."""
    return Counts(*map(int, np.fromfile(folder / "scripted.counts", np.int64)))
