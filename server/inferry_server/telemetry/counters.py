"""Counters and histograms that many threads add to, at the price of one lock and no search through labels.

The Prometheus client's own cost a request 33 calls of Python functions, a sixth of all. These say the same on its
page: it asks a registry's collectors for their families, and formats them.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


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


def observe_each(observed: Iterable[tuple[Distribution, Iterable[float]]]) -> None:
    """Count values in several series: one call for everything that a batch has to tell."""
    for distribution, values in observed:
        distribution.observe_all(values)


class Counter(Collector):
    """A counter with labels; its name gets the suffix `_total` on the page."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        self._name, self._documentation, self._label_names = name, documentation, labels
        self._series: dict[Labels, Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The series with these values of the labels."""
        return self._series.setdefault(values, Count())

    def remove(self, *values: str) -> None:
        """Drop a series, if there is one: who still has it counts into nothing."""
        self._series.pop(values, None)

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._label_names)
        for values, count in list(self._series.items()):
            family.add_metric(values, count.value)
        yield family

    def describe(self) -> Iterator[Metric]:
        """Its name, for the registry."""
        yield CounterMetricFamily(self._name, self._documentation, labels=self._label_names)


class Histogram(Collector):
    """A histogram with labels, the same buckets in every series."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._label_names = name, documentation, labels
        self._bounds = tuple(map(float, buckets))
        self._series: dict[Labels, Distribution] = {}
        registry.register(self)

    def labels(self, *values: str) -> Distribution:
        """The series with these values of the labels."""
        return self._series.setdefault(values, Distribution(self._bounds))

    def remove(self, *values: str) -> None:
        """Drop a series, if there is one: who still has it counts into nothing."""
        self._series.pop(values, None)

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
        names = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]  # type: ignore[no-untyped-call]
        for values, distribution in list(self._series.items()):
            counts, total = distribution.read()
            family.add_metric(values, list(zip(names, counts, strict=True)), total)
        yield family

    def describe(self) -> Iterator[Metric]:
        """Its name, for the registry."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
