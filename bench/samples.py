"""What one round of one workload measured, and how rounds become figures."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BareCosts = Mapping[int, float]
"""CPU microseconds of one batch in a bare session, by its rows."""


@dataclass(frozen=True)
class Sample:
    """One round of one workload on one contender.

    Attributes:
        images_per_s: answered.
        cpu_us: of the server's process tree, for one image; a bare session's own.
        rows: of the mean batch that was formed.
        beyond_us: `cpu_us` less what a bare session takes for one image in such batches.
        p50_ms: of a request.
        p99_ms: likewise.
        p999_ms: likewise; None where the load generator does not tell.
    """

    images_per_s: float
    cpu_us: float
    rows: float
    beyond_us: float
    p50_ms: float
    p99_ms: float
    p999_ms: float | None = None

    @property
    def tail(self) -> float | None:
        """p99.9 ÷ p50: how far the unluckiest are from the usual."""
        return self.p999_ms / self.p50_ms if self.p999_ms is not None and self.p50_ms else None


@dataclass(frozen=True)
class Overload:
    """One round of an open loop above what the server can do.

    Attributes:
        peak_per_s: answers a second in a closed loop, just before.
        offered_per_s: sent.
        useful_per_s: answered within the objective, counted from the moment a request was due.
        late_per_s: answered after it: admitted, computed, and of no use.
        accepted_p99_ms: of everything that was answered.
        rows: of the mean batch that was formed meanwhile; None: nothing was computed.
        expired: requests computed although their time had passed when their batch began; None: not known.
        growth_mb: resident memory of the server after, less before.
        behind_ms: how late the generator was at worst.
    """

    peak_per_s: float
    offered_per_s: float
    useful_per_s: float
    late_per_s: float
    accepted_p99_ms: float
    rows: float | None
    expired: int | None
    growth_mb: float
    behind_ms: float


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Median and extremes.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no rounds to summarize; expected at least one")
    return Spread(statistics.median(values), min(values), max(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Round by round, so that what slowed the machine in one round slowed both.

    Raises:
        ValueError: the numbers of rounds differ.
    """
    return spread([a / b for a, b in zip(above, below, strict=True)])


def differences(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Round by round, as `ratios`."""
    return spread([a - b for a, b in zip(above, below, strict=True)])


def bare_batch_us(costs: BareCosts, rows: float) -> float:
    """CPU microseconds of a batch of so many rows, between and beyond the measured sizes along straight lines.

    Args:
        costs: at two sizes at least.
        rows: may be a mean, and so no whole number.
    """
    sizes = sorted(costs)
    upper = next((size for size in sizes[1:] if rows <= size), sizes[-1])
    lower = sizes[sizes.index(upper) - 1]
    slope = (costs[upper] - costs[lower]) / (upper - lower)
    return costs[lower] + slope * (rows - lower)


def beyond_us(cpu_us: float, rows: float, costs: BareCosts) -> float:
    """Server CPU of one image less the model's own at the batches that were really formed."""
    return cpu_us - bare_batch_us(costs, rows) / rows
