"""Counters and histograms with labels: how the metrics page shows the series that requests count into.

The Prometheus client's own cost a request 33 calls of Python functions, a sixth of all. These say the same on its
page: it asks a registry's collectors for their families, and formats them.
"""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from inferry_server.telemetry.series import Count, Distribution

Labels = tuple[str, ...]


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
