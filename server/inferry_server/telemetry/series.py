"""What is counted while requests pass: numbers that many threads add to, one lock each; nothing is looked up here.

What is on the metrics page, and under which labels, says `metrics.py`, which hands the series out.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

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


class Distribution:
    """One series of a histogram. Thread-safe; a reader sees whole observations.

    Args:
        bounds: of the buckets, ascending; a value belongs to the first that is not below it.
    """

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count several values."""
        bounds, counts = self._bounds, self._counts
        with self._lock:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
                self._sum += value

    def read(self) -> tuple[list[int], float]:
        """How many values are in each bucket or below, the last one without a bound; and their sum."""
        with self._lock:
            return list(accumulate(self._counts)), self._sum


class MethodSeries:
    """What one RPC method counts. Thread-safe.

    Args:
        received: calls that have arrived.
        duration: from their arrival to their end, in seconds.
        outcome: finds the series of an outcome, by status code and kind of error; asked once for each.
        open_streams: of a streaming method.
    """

    def __init__(
        self,
        received: Count,
        duration: Distribution,
        outcome: Callable[[str, str], Count],
        open_streams: Gauge | None = None,
    ) -> None:
        self._received = received
        self._duration = duration
        self._outcome = outcome
        self._open = open_streams
        self._outcomes: dict[tuple[str, str], Count] = {}

    @property
    def in_flight(self) -> int:
        """Calls that have arrived and not ended."""
        return self._received.value - sum(outcome.value for outcome in list(self._outcomes.values()))

    def received(self) -> None:
        """A call has arrived."""
        self._received.inc()
        if self._open is not None:
            self._open.inc()

    def ended(self, *, code: str, reason: str, seconds: float) -> None:
        """It has ended so, after so long."""
        outcome = self._outcomes.get((code, reason))
        if outcome is None:
            outcome = self._outcomes.setdefault((code, reason), self._outcome(code, reason))
        outcome.inc()
        self._duration.observe(seconds)
        if self._open is not None:
            self._open.dec()


@dataclass(frozen=True)
class BatchSeries:
    """What one version counts of its batches, and of the requests that were answered with them. Thread-safe.

    Attributes:
        batch_rows: rows of each run of the model.
        computed_rows: of all of them.
        assembly: seconds of putting each run's inputs together.
        compute: seconds of each run.
        queue: seconds that each request waited.
        encode: seconds of making each reply.
    """

    batch_rows: Distribution
    computed_rows: Count
    assembly: Distribution
    compute: Distribution
    queue: Distribution
    encode: Distribution

    def add(
        self,
        *,
        runs: Sequence[int],
        assembly_s: Sequence[float],
        compute_s: Sequence[float],
        queue_s: Sequence[float],
        output_s: Sequence[float],
    ) -> None:
        """Count a batch: a number for each of its runs, then one for each request that was answered with it."""
        self.batch_rows.observe_all(runs)
        self.computed_rows.inc(sum(runs))
        self.assembly.observe_all(assembly_s)
        self.compute.observe_all(compute_s)
        self.queue.observe_all(queue_s)
        self.encode.observe_all(output_s)
