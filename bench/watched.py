"""What watching a server costs its callers: p99 with ten tabs of the live page and /metrics each second, and alone.

One load goes on all the time, of one server process; its requests come at random times, the same in every slice, and
each one's latency counts from the moment it was due. Watchers come and go, in pairs of slices of which one is watched,
in random order: so each slice has a neighbour of the other kind. Slices that nobody watches are compared among
themselves, too: where these differ, the machine's other work does what watching is said to do, and nothing is shown.
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import psutil

from bench.load_generator import Job
from bench.measure import generate
from bench.paired import Latencies, Ratio, mean_ratio, quantile_ratio
from bench.perf_analyzer import LoadFailedError
from bench.processes import cpu_s
from bench.watchers import watching

MOST = 1.05  # that watching may make p99 longer
_SHARE = 0.99
_WIDEST = 1.15  # that the control's interval may reach to
_LATE_S = 5e-4  # p99 of how late the client itself may be in a slice
_SETTLE_S = 0.3  # after watchers came or went, and before any figure
_START_S = 3.0  # for the load to be there
_SLACK = 1.05  # what a pair may take longer, on a busy machine; there may be fewer pairs then
_SEED = 0


@dataclass(frozen=True)
class Slice:
    """A part of the load, with all of it watched or none.

    Attributes:
        watched: whether it is.
        begins: on `perf_counter`'s clock, which all processes share.
        ends: likewise.
        cpu_us: of the server, for each second.
    """

    watched: bool
    begins: float
    ends: float
    cpu_us: float


@dataclass(frozen=True)
class Measured:
    """What a slice showed.

    Attributes:
        latencies: of the requests that were due in it, in seconds.
        lag_s: p99 of how late the client sent them.
        cpu_us: of the server, for each second.
    """

    latencies: Latencies
    lag_s: float
    cpu_us: float

    @property
    def p99_s(self) -> float:
        """Of the latencies."""
        return float(np.quantile(self.latencies, _SHARE))

    @property
    def is_late(self) -> bool:
        """Whether the client was, by more than could be overlooked."""
        return self.lag_s > _LATE_S


Pair = tuple[Measured, Measured]
"""Alone, watched."""


def compare_watched(
    job: Job, http_port: int, server: psutil.Process, *, pairs: int, seconds: float
) -> dict[str, object]:
    """Ratios of p99, watched to alone, and their intervals.

    Args:
        job: an open loop, whose `times` and `lags` are written, and whose random times repeat in each slice.
        http_port: of the server.
        server: whose CPU is told.
        pairs: of slices.
        seconds: of a slice; watchers come once a second, so whole ones are fair.

    Raises:
        LoadFailedError: the load failed, or no pair was measured.
    """
    a_pair = _SLACK * 2 * (seconds + _SETTLE_S)
    total, taken, chance = _START_S + pairs * a_pair, list[tuple[Slice, Slice]](), random.Random(_SEED)
    with ThreadPoolExecutor(1) as pool:
        loading, ends = pool.submit(generate, replace(job, seconds=total)), time.perf_counter() + total
        time.sleep(_START_S)
        while len(taken) < pairs and time.perf_counter() + a_pair < ends:
            taken.append(_two_slices(http_port, server, seconds, watched_first=chance.random() < 0.5))
        result = loading.result()
    found = measured(taken, np.fromfile(job.times).reshape(2, -1), np.fromfile(job.lags).reshape(2, -1))
    if not found:
        raise LoadFailedError("no pair was measured while the load went on; expected a machine that is less busy")
    return {
        "requests_per_s": round(job.rate),
        "refused": result.sent - result.answered,
        **told(found),
        "load_average": os.getloadavg()[0],
    }


def _two_slices(port: int, server: psutil.Process, seconds: float, *, watched_first: bool) -> tuple[Slice, Slice]:
    """One alone and one watched, as they came."""

    def taken(*, watched: bool) -> Slice:
        with watching(port) if watched else nullcontext():
            time.sleep(_SETTLE_S)
            begins, before = time.perf_counter(), cpu_s(server)
            time.sleep(seconds)
            ends = time.perf_counter()
            return Slice(watched, begins, ends, (cpu_s(server) - before) / (ends - begins) * 1e6)

    return taken(watched=watched_first), taken(watched=not watched_first)


def measured(taken: Sequence[tuple[Slice, Slice]], answers: Latencies, lags: Latencies) -> list[Pair]:
    """What was due in each slice, of the pairs through which the load lasted.

    Args:
        taken: the slices.
        answers: `(2, N)`: when each answered request was due, and its latency.
        lags: `(2, M)`: when each request was due, and how late it left.
    """
    answers, lags = (rows[:, np.argsort(rows[0], kind="stable")] for rows in (answers, lags))
    first, last = lags[0, 0], lags[0, -1]

    def within(rows: Latencies, one: Slice) -> Latencies:
        return rows[1, slice(*np.searchsorted(rows[0], [one.begins, one.ends]))]

    found = []
    for pair in taken:
        if pair[0].begins < first or pair[1].ends > last or not all(within(answers, one).size for one in pair):
            continue
        alone, watched = (
            Measured(within(answers, one), float(np.quantile(within(lags, one), _SHARE)), one.cpu_us)
            for one in sorted(pair, key=lambda one: one.watched)
        )
        found.append((alone, watched))
    return found


def told(pairs: Sequence[Pair]) -> dict[str, object]:
    """What is told of the pairs, with an interval for each ratio, and what follows from them.

    `paired` compares p99 slice by slice, so that a burst of the machine's other work moves little; `pooled` is the p99
    of all requests together, which one long burst decides.
    """
    on_time = [pair for pair in pairs if not any(one.is_late for one in pair)]
    effect, control = _paired(pairs), _control(pairs)
    halves = [(one.latencies, again.latencies) for one, again in _alone_twice(pairs)]
    return {
        "p99_ms": _by_state(pairs, lambda one: one.p99_s * 1e3),
        "server_cpu_us_per_s": _by_state(pairs, lambda one: one.cpu_us),
        "client_lag_p99_ms": _by_state(pairs, lambda one: one.lag_s * 1e3),
        "pairs in which the client was late": len(pairs) - len(on_time),
        "watched / alone, paired": str(effect),
        "alone / alone, paired": str(control) if control else "two pairs are needed",
        "watched / alone, paired, client on time": str(_paired(on_time)) if on_time else "none of the pairs",
        "watched / alone, pooled": str(quantile_ratio([(a.latencies, b.latencies) for a, b in pairs], _SHARE)),
        "alone / alone, pooled": str(quantile_ratio(halves, _SHARE)) if halves else "two pairs are needed",
        "must be at most": MOST,
        "so": verdict(effect, control) + _said_of_client(len(pairs) - len(on_time), len(pairs)),
    }


def verdict(effect: Ratio, control: Ratio | None) -> str:
    """What a run shows, of watched / alone and of alone / alone: nothing, where the latter is not near 1."""
    if None in (effect.low, effect.high) or control is None or None in (control.low, control.high):
        return "nothing is shown: too few pairs"
    assert effect.low is not None and effect.high is not None  # noqa: PT018 - for mypy
    assert control.low is not None and control.high is not None  # noqa: PT018 - for mypy
    wide = control.high > _WIDEST or control.low < 1 / _WIDEST
    if wide or not control.low <= 1 <= control.high or not 1 / MOST <= control.value <= MOST:
        return "nothing is shown: slices that nobody watched differ as much"
    if effect.high <= MOST:
        return "holds"
    return "missed" if effect.low > MOST else "nothing is shown: the interval has both; take more pairs"


def _said_of_client(late: int, of: int) -> str:
    return f"; but the client itself was late in {late} of {of} pairs" if 2 * late > of else ""


def _paired(pairs: Sequence[Pair]) -> Ratio:
    return mean_ratio([(alone.p99_s, watched.p99_s) for alone, watched in pairs])


def _control(pairs: Sequence[Pair]) -> Ratio | None:
    twice = _alone_twice(pairs)
    return mean_ratio([(one.p99_s, again.p99_s) for one, again in twice]) if twice else None


def _alone_twice(pairs: Sequence[Pair]) -> list[tuple[Measured, Measured]]:
    """Neighbours among the slices that nobody watched, each in one pair; every second one the other way round."""
    alone = [one for one, _ in pairs]
    twice = list(zip(alone[::2], alone[1::2], strict=False))
    return [pair if at % 2 else pair[::-1] for at, pair in enumerate(twice)]


def _by_state(pairs: Sequence[Pair], figure: Callable[[Measured], float]) -> dict[str, float]:
    """The median slice's."""
    return {
        name: round(float(np.median([figure(pair[at]) for pair in pairs])), 3)
        for at, name in enumerate(("alone", "watched"))
    }
