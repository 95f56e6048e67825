"""Two load tests side by side: what differs, and whether more than chance would explain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from inferry_client.load.errors import LoadError
from inferry_client.load.summary import LoadSummary, Second

_RESAMPLES = 1000
LEAST_SOAK_S = 20
"""Seconds of a test whose thirds can be compared."""

_DRIFT = 0.1  # of a figure, below which a test's end is as its beginning
_LEAST_SECONDS = 4  # fewer say nothing about how much seconds differ


@dataclass(frozen=True)
class Change:
    """One figure of two tests.

    Attributes:
        name: of the figure.
        a: in the first test.
        b: in the second.
        low: of the 95 % interval of b / a.
        high: of it.
        more_is_better: or less.
    """

    name: str
    a: float
    b: float
    low: float
    high: float
    more_is_better: bool

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or that nothing is shown."""
        if self.low <= 1 <= self.high:
            return "no difference shown"
        return "better" if (self.low > 1) == self.more_is_better else "worse"


def compare(a: LoadSummary, b: LoadSummary, *, seed: int = 0) -> list[Change]:
    """The changes from one test to another, with 95 % intervals.

    The interval comes from drawing each test's seconds anew, with replacement, a thousand times
    (the bootstrap): so much would the ratio swing if the tests were repeated. It knows nothing of
    what differs between runs but not within them, such as where a process has its memory.

    Raises:
        LoadError: a test too short for that.
    """
    for summary in (a, b):
        if (seconds := len(summary.full_seconds)) < _LEAST_SECONDS:
            raise LoadError(f"a test of {seconds} full seconds cannot be compared; expected at least {_LEAST_SECONDS}")
    generator = np.random.default_rng(seed)
    sides = [_Side(summary.full_seconds, generator) for summary in (a, b)]
    return [
        _change("right answers/s", [side.rates for side in sides], more_is_better=True),
        _change("p50 ms", [side.percentiles(0.50) for side in sides], more_is_better=False),
        _change("p99 ms", [side.percentiles(0.99) for side in sides], more_is_better=False),
        _change("refused or failed, share", [side.error_rates for side in sides], more_is_better=False),
    ]


def drift(summary: LoadSummary) -> list[str]:
    """What grew worse from the first third of a test to the last, in words.

    A figure counts where it is a tenth worse or more, and chance does not explain it (`compare`).
    The first seconds warm up, so the first third leaves a tenth of the test out.
    """
    seconds = summary.full_seconds
    if len(seconds) < LEAST_SOAK_S - 1:
        return [f"the test has {len(seconds)} full seconds; expected at least {LEAST_SOAK_S - 1} to compare"]
    warm, third = len(seconds) // 10, len(seconds) // 3
    first = replace(summary, series=seconds[warm:third], offered_per_second=0.0)  # whole seconds all of them
    last = replace(summary, series=seconds[-third:], offered_per_second=0.0)
    return [
        f"{change.name} went from {change.a:.4g} in the first third to {change.b:.4g} in the last"
        for change in compare(first, last)
        if change.verdict == "worse" and abs(change.b - change.a) >= _DRIFT * change.a
    ]


class _Side:
    """A test as it was (first) and with its seconds drawn anew: each figure is an array over those."""

    def __init__(self, seconds: Sequence[Second], generator: np.random.Generator) -> None:
        drawn = generator.multinomial(len(seconds), [1 / len(seconds)] * len(seconds), _RESAMPLES)
        weights = np.vstack([np.ones(len(seconds), int), drawn])
        self._times = np.array(sorted({time for second in seconds for time in second.times}) or [0.0])
        column = {time: number for number, time in enumerate(self._times.tolist())}
        counts = np.zeros((len(seconds), len(column)))  # exact, and multiplied far faster than integers
        for row, second in zip(counts, seconds, strict=True):
            row[[column[time] for time in second.times]] = list(second.times.values())
        self._counts = weights @ counts
        answered = weights @ np.array([second.answered for second in seconds])
        bad = weights @ np.array([second.refused + second.failed for second in seconds])
        self.rates = answered / len(seconds)
        self.error_rates = bad / np.maximum(1, bad + answered)

    def percentiles(self, share: float) -> NDArray[np.float64]:
        """The time that this share of the answers does not exceed."""
        reached = np.cumsum(self._counts, axis=1) >= np.ceil(self._counts.sum(axis=1, keepdims=True) * share)
        found: NDArray[np.float64] = self._times[np.argmax(reached, axis=1)]
        return found


def _change(name: str, figures: Sequence[NDArray[np.float64]], *, more_is_better: bool) -> Change:
    a, b = figures
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(a == b, 1.0, b / a)
    low, high = np.quantile(ratios[1:], (0.025, 0.975), method="nearest")
    return Change(name, float(a[0]), float(b[0]), float(low), float(high), more_is_better)
