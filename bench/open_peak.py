"""The highest rate of single requests, at random times, that a server and the client beside it stand."""

from dataclasses import dataclass, replace

from bench.load_generator import Job
from bench.measure import generate
from bench.perf_analyzer import LoadFailedError

OBJECTIVE_MS = 15.0  # for p99, as in `make bench-loadgen`
_LEAST = 1 / 16  # of the highest rate that is tried
_TRIALS, _TRIES = 5, 2  # of rates, 9 % apart at the end; of each, as other work may have spoilt the first
_TRIAL_S = 3.0


@dataclass(frozen=True)
class OpenPeak:
    """What a search found.

    Attributes:
        rate: requests a second.
        p99_ms: at this rate, from the moment that a request was due.
    """

    rate: float
    p99_ms: float


def find_open_peak(job: Job, highest: float, *, objective_ms: float = OBJECTIVE_MS) -> OpenPeak:
    """The highest rate at which no request is refused and p99 is within the objective; found by halving, in a minute.

    Args:
        job: whatever its rate; its requests come at random times here.
        highest: requests a second that are more than the server stands.

    Raises:
        LoadFailedError: the server does not even stand a sixteenth of that.
    """
    low, high = highest * _LEAST, highest
    best = _stands(job, low, objective_ms)
    if best is None:
        raise LoadFailedError(
            f"p99 is above {objective_ms:g} ms at {low:.0f} requests a second already, or some are refused; expected a "
            "machine that is less busy"
        )
    for _ in range(_TRIALS):
        middle = (low * high) ** 0.5
        found = _stands(job, middle, objective_ms)
        if found is None:
            high = middle
        else:
            low, best = middle, found
    return best


def _stands(job: Job, rate: float, objective_ms: float) -> OpenPeak | None:
    for _ in range(_TRIES):
        result = generate(replace(job, rate=rate, seconds=_TRIAL_S, repeats_s=_TRIAL_S))
        if result.sent == result.answered and result.p99_ms <= objective_ms:
            return OpenPeak(rate, result.p99_ms)
    return None
