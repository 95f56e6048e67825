"""What is counted while requests pass: numbers that many threads add to, one lock each; nothing is looked up here.

Which metric shows a series on the metrics page, and under which labels, says `metric_table.py`.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import add

from prometheus_client import Gauge


class Count:
    """One series of a counter. Thread-safe."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0

    def inc(self, amount: int = 1) -> None:
        """Count so many more."""
        with self._lock:
            self._value += amount

    @property
    def value(self) -> int:
        """Counted so far."""
        return self._value


@dataclass(frozen=True)
class Exemplar:
    """One value of a bucket whose request was traced.

    Attributes:
        at: seconds since the epoch.
    """

    value: float
    trace_id: str
    at: float


class Distribution:
    """One series of a histogram. Thread-safe; a reader sees whole observations.

    Args:
        bounds: of the buckets, ascending; a value belongs to the first that is not below it.
    """

    __slots__ = ("_bounds", "_counts", "_exemplars", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count a value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count several values."""
        bounds, counts = self._bounds, self._counts
        with self._lock:
            total = self._sum
            for value in values:
                counts[bisect_left(bounds, value)] += 1
                total += value
            self._sum = total

    def mark(self, exemplar: Exemplar) -> None:
        """Remember the latest traced value of its bucket, which was counted besides."""
        with self._lock:
            self._exemplars[bisect_left(self._bounds, exemplar.value)] = exemplar

    def exemplars(self) -> dict[int, Exemplar]:
        """By bucket, of those that have one."""
        with self._lock:
            return dict(self._exemplars)

    def read(self) -> tuple[list[int], float]:
        """How many values are in each bucket or below, the last one without a bound; and their sum."""
        with self._lock:
            return list(accumulate(self._counts)), self._sum


class Sums:
    """Several series of counters that grow together, at the price of one lock. Thread-safe."""

    __slots__ = ("_lock", "_values")

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._values = [0.0] * count

    def add(self, amounts: Sequence[float]) -> None:
        """Add to each its amount."""
        values = self._values
        with self._lock:
            values[:] = map(add, values, amounts)

    def __getitem__(self, position: int) -> "Share":
        """One of the series."""
        if not 0 <= position < len(self._values):
            raise IndexError(position)
        return Share(self._values, position)


@dataclass(frozen=True)
class Share:
    """One series of `Sums`, for whoever shows it."""

    values: Sequence[float]
    position: int

    @property
    def value(self) -> float:
        """Counted so far."""
        return self.values[self.position]


class MethodSeries:
    """What one RPC method counts. Thread-safe.

    Args:
        received: calls that have arrived.
        duration: finds the series of a status code: from their arrival to their end, in seconds.
        outcome: finds the series of an outcome, by status code and kind of error; asked once for each.
        open_streams: of a streaming method.
    """

    def __init__(
        self,
        received: Count,
        duration: Callable[[str], Distribution],
        outcome: Callable[[str, str], Count],
        open_streams: Gauge | None = None,
    ) -> None:
        self._received = received
        self._duration = duration
        self._outcome = outcome
        self._open = open_streams
        self._outcomes: dict[tuple[str, str], tuple[Count, Distribution]] = {}

    @property
    def in_flight(self) -> int:
        """Calls that have arrived and not ended."""
        return self._received.value - sum(count.value for count, _ in list(self._outcomes.values()))

    def received(self) -> None:
        """A call has arrived."""
        self._received.inc()
        if self._open is not None:
            self._open.inc()

    def ended(self, *, code: str, reason: str, seconds: float) -> None:
        """It has ended so, after so long."""
        outcome = self._outcomes.get((code, reason))
        if outcome is None:
            found = self._outcome(code, reason), self._duration(code)
            outcome = self._outcomes.setdefault((code, reason), found)
        count, duration = outcome
        count.inc()
        duration.observe(seconds)
        if self._open is not None:
            self._open.dec()


SUMMED = ("rows", "answered", "read", "queue", "compute", "reply", "busy", "input_bytes", "output_bytes")
"""What `BatchSeries.sums` adds up, in this order."""


@dataclass(frozen=True)
class BatchSeries:
    """What one version counts of its batches, and of the requests that were answered with them. Thread-safe.

    Attributes:
        batch_rows: rows of each run of the model.
        compute: seconds of each run.
        queue: seconds that each request waited until its first batch.
        requests: seconds from each request's arrival to its reply.
        sums: what `SUMMED` names: rows that were computed, requests that were answered, the parts of their time in
            seconds, seconds that instances computed, bytes of tensors.
    """

    batch_rows: Distribution
    compute: Distribution
    queue: Distribution
    requests: Distribution
    sums: Sums

    def add(
        self,
        *,
        runs: Sequence[int],
        compute_s: Sequence[float],
        queue_s: Sequence[float],
        total_s: Sequence[float],
        sums: Sequence[float],
    ) -> None:
        """Count a batch: a number for each of its runs, then one for each request that was answered with it."""
        self.batch_rows.observe_all(runs)
        self.compute.observe_all(compute_s)
        self.queue.observe_all(queue_s)
        self.requests.observe_all(total_s)
        self.sums.add(sums)
