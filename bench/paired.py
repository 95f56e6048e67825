"""Two states of a server that take turns: the ratio of a figure between them, and the interval that noise leaves it.

On a machine that also does other work, a figure differs from one moment to the next by more than most effects that are
looked for. So the states alternate in short segments, each segment is compared with its neighbour, and every ratio
comes with an interval: one that holds 1 says that nothing was shown, a wide one that nothing could have been.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Latencies = NDArray[np.float64]

_LEFT_OUT = 0.05  # of the time, an interval does not hold what it is an interval of
_RESAMPLES = 2000
_TRIMMED = 0.25  # of the ratios, at each end
_FEWEST = 6  # pairs that an interval is made of
_BUCKET = 0.002  # width of a bucket of latencies, as a share of its latency
_SHORTEST_S, _LONGEST_S = 1e-5, 100.0


@dataclass(frozen=True)
class Ratio:
    """A ratio of two figures.

    Attributes:
        value: the best guess.
        low: the 95 % interval's lower end; None where too little was measured for an interval.
        high: its upper end.
        of: how many pairs, or rounds, it was made of.
    """

    value: float
    low: float | None
    high: float | None
    of: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (of {self.of}: too few for an interval)"
        return f"{self.value:.3f} (95 %: {self.low:.3f} to {self.high:.3f}; of {self.of})"


def median_ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """The median of the second over the first in each pair, with the sign test's interval.

    The median of what the pairs are drawn from lies between the k-th smallest and the k-th largest ratio, unless fewer
    than k of the ratios fell on one side of it. Nothing else is taken for granted of how they are distributed, but that
    one pair says nothing of the next.
    """
    ratios = sorted(second / first for first, second in pairs)
    rank = _rank(len(ratios))
    low, high = (ratios[rank - 1], ratios[-rank]) if rank else (None, None)
    return Ratio(float(np.median(ratios)), low, high, len(ratios))


def _rank(count: int) -> int:
    """The largest k for which so many throws of a coin give fewer than k heads, or tails, in 5 % of cases at most."""
    fewer, rank = 0, 0
    while rank < count // 2:
        fewer += math.comb(count, rank)
        if 2 * fewer > _LEFT_OUT * 2**count:
            break
        rank += 1
    return rank


def mean_ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """The geometric mean of the second over the first in each pair, with the bootstrap's interval.

    The quarter of the ratios that is smallest and the quarter that is largest are left out, each time: what other work
    did to a few pairs is noise. Where most pairs are alike, the interval is narrower than the median's.
    """
    ratios = np.log([second / first for first, second in pairs])
    drawn = np.random.default_rng(0).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = np.exp(np.quantile(_trimmed(ratios[drawn]), [_LEFT_OUT / 2, 1 - _LEFT_OUT / 2]))
    enough = len(pairs) >= _FEWEST
    value = float(np.exp(_trimmed(ratios[np.newaxis])[0]))
    return Ratio(value, float(low) if enough else None, float(high) if enough else None, len(pairs))


def _trimmed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row without its ends."""
    cut = int(rows.shape[1] * _TRIMMED)
    trimmed: NDArray[np.float64] = np.sort(rows, axis=1)[:, cut : rows.shape[1] - cut].mean(axis=1)
    return trimmed


def quantile_ratio(rounds: Sequence[tuple[Latencies, Latencies]], share: float) -> Ratio:
    """A quantile of all second latencies over that of all first ones, to 0.2 %, with the bootstrap's interval.

    Rounds are drawn again, not requests: those that come together are slow together.

    Args:
        rounds: what was measured together, in seconds.
        share: of the latencies that are not above the quantile.
    """
    counts = np.array([[_counted(first), _counted(second)] for first, second in rounds])
    times = np.random.default_rng(0).multinomial(len(rounds), [1 / len(rounds)] * len(rounds), _RESAMPLES)
    found = [_ratio(np.tensordot(each, counts, 1), share) for each in times]
    low, high = np.quantile(found, [_LEFT_OUT / 2, 1 - _LEFT_OUT / 2]) if len(rounds) > 1 else (None, None)
    value = _ratio(counts.sum(axis=0), share)
    return Ratio(value, None if low is None else float(low), None if high is None else float(high), len(rounds))


def _counted(latencies: Latencies) -> NDArray[np.int64]:
    """How many are in each bucket."""
    buckets = math.ceil(math.log(_LONGEST_S / _SHORTEST_S) / _BUCKET)
    place = np.log(np.clip(latencies, _SHORTEST_S, _LONGEST_S) / _SHORTEST_S) / _BUCKET
    return np.bincount(np.minimum(place.astype(np.int64), buckets - 1), minlength=buckets)


def _ratio(counts: NDArray[np.int64], share: float) -> float:
    first, second = (np.searchsorted(np.cumsum(each), share * each.sum(), side="right") for each in counts)
    return math.exp((int(second) - int(first)) * _BUCKET)
