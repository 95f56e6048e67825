"""Counters and histograms with labels: how the metrics page shows the series that requests count into.

The Prometheus client's own cost a request 33 calls of Python functions, a sixth of all. These say the same: `collect`
gives the families to whoever formats them, `texts` writes them as the page has them, at a tenth of the cost, in
pieces of a few dozen lines.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as OpenMetricsExemplar
from prometheus_client.utils import floatToGoString

from inferry_server.telemetry.exposition import (
    Labels,
    Spellings,
    heading,
    histogram_heads,
    histogram_lines,
    labelled,
    some_lines,
)
from inferry_server.telemetry.series import Count, Distribution, Exemplar, Share


class Counter(Collector):
    """A counter with labels; its name gets the suffix `_total` on the page."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        self._name, self._documentation, self._label_names = name, documentation, labels
        self._series: dict[Labels, Count] = {}
        self._shown: dict[Labels, Count | Share] = {}
        self._heads = Spellings(lambda values: f"{name}_total{labelled(labels, values)} ")
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The series with these values of the labels."""
        return self._series.setdefault(values, Count())

    def show(self, count: Count | Share, *values: str) -> None:
        """Show what is counted elsewhere under these values of the labels."""
        self._shown[values] = count

    def remove(self, *values: str) -> None:
        """Drop a series, if there is one: who still has it counts into nothing."""
        self._series.pop(values, None)
        self._shown.pop(values, None)

    def values(self) -> dict[Labels, float]:
        """Counted so far, by the values of the labels."""
        counted: list[tuple[Labels, Count | Share]] = [*self._series.items(), *self._shown.items()]
        return {values: count.value for values, count in counted}

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._label_names)
        for values, value in self.values().items():
            family.add_metric(values, value)
        yield family

    def texts(self, *, open_metrics: bool) -> Iterator[str]:
        """The family as the page has it."""
        values = self.values()
        head = heading(self._name, self._documentation, "counter", open_metrics=open_metrics)
        return some_lines(head, self._heads.of(values).values(), values.values())

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
        names = bucket_names(self._bounds)
        self._heads = Spellings(lambda values: histogram_heads(name, labels, values, names))
        registry.register(self)

    def labels(self, *values: str) -> Distribution:
        """The series with these values of the labels."""
        return self._series.setdefault(values, Distribution(self._bounds))

    def remove(self, *values: str) -> None:
        """Drop a series, if there is one: who still has it counts into nothing."""
        self._series.pop(values, None)

    def sums(self) -> dict[Labels, float]:
        """What was observed together, by the values of the labels."""
        return {values: distribution.read()[1] for values, distribution in list(self._series.items())}

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
        names = bucket_names(self._bounds)
        for values, distribution in list(self._series.items()):
            counts, total = distribution.read()
            marks = distribution.exemplars()
            buckets = [
                (name, count, _exemplar(marks[position])) if position in marks else (name, count)
                for position, (name, count) in enumerate(zip(names, counts, strict=True))
            ]
            family.add_metric(values, buckets, total)
        yield family

    def texts(self, *, open_metrics: bool) -> Iterator[str]:
        """The family as the page has it; OpenMetrics' has exemplars."""
        yield heading(self._name, self._documentation, "histogram", open_metrics=open_metrics)
        series = dict(self._series)
        for heads, distribution in zip(self._heads.of(series).values(), series.values(), strict=True):
            marks = distribution.exemplars() if open_metrics else {}
            yield histogram_lines(heads, *distribution.read(), marks)

    def describe(self) -> Iterator[Metric]:
        """Its name, for the registry."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)


_Read = tuple[list[int], float]  # as `Distribution.read` gives it


class CallDurations(Collector):
    """How long calls took, by method and status code, under two names.

    `rpc_server_call_duration_seconds` is OpenTelemetry's name, with its labels; `inferry_request_duration_seconds` is
    the sum over codes.

    Attributes:
        names: of the buckets.
    """

    def __init__(self, buckets: Sequence[float], *, registry: CollectorRegistry) -> None:
        self._bounds = tuple(map(float, buckets))
        self.names = bucket_names(self._bounds)
        self._series: dict[Labels, Distribution] = {}
        self._own_heads, self._otel_heads = self._spellings()
        registry.register(self)

    def labels(self, method: str, code: str) -> Distribution:
        """The series of a method's calls that ended so; `method` is the path."""
        return self._series.setdefault((method, code), Distribution(self._bounds))

    def by_method(self) -> dict[str, tuple[list[int], float]]:
        """How many of a method's calls are in each bucket or below, and the sum of their seconds."""
        found: dict[str, tuple[list[int], float]] = {}
        for (method, _), distribution in list(self._series.items()):
            counts, total = distribution.read()
            before, sum_before = found.get(method, ([0] * len(counts), 0.0))
            found[method] = ([a + b for a, b in zip(before, counts, strict=True)], sum_before + total)
        return found

    def collect(self) -> Iterator[Metric]:
        """Both families as they are now."""
        own, otel = self.describe()
        names = self.names
        for method, (counts, total) in self.by_method().items():
            own.add_metric([method], list(zip(names, counts, strict=True)), total)
        for (method, code), distribution in list(self._series.items()):
            counts, total = distribution.read()
            otel.add_metric(_otel_labels(method, code), list(zip(names, counts, strict=True)), total)
        yield own
        yield otel

    def texts(self, *, open_metrics: bool) -> Iterator[str]:
        """Both families as the page has them."""
        series = dict(self._series)
        by_method: dict[Labels, _Read] = {(method,): read for method, read in self.by_method().items()}
        by_code: dict[Labels, _Read] = {values: distribution.read() for values, distribution in series.items()}
        shown = zip(self.describe(), (self._own_heads, self._otel_heads), (by_method, by_code), strict=True)
        for family, spellings, reads in shown:
            yield heading(family.name, family.documentation, "histogram", open_metrics=open_metrics)
            for heads, read in zip(spellings.of(reads).values(), reads.values(), strict=True):
                yield histogram_lines(heads, *read)

    def _spellings(self) -> tuple[Spellings[list[str]], Spellings[list[str]]]:
        own, otel = self.describe()
        names, own_names, otel_names = self.names, own._labelnames, otel._labelnames
        return (
            Spellings(lambda values: histogram_heads(own.name, own_names, values, names)),
            Spellings(lambda values: histogram_heads(otel.name, otel_names, _otel_labels(*values), names)),
        )

    def describe(self) -> tuple[HistogramMetricFamily, HistogramMetricFamily]:
        """Their names, for the registry."""
        return (
            HistogramMetricFamily(
                "inferry_request_duration_seconds", "From the request's arrival to its reply.", labels=["method"]
            ),
            HistogramMetricFamily(
                "rpc_server_call_duration_seconds",
                "From the request's arrival to its reply, by status, as OpenTelemetry names it.",
                labels=["rpc_system_name", "rpc_method", "rpc_response_status_code"],
            ),
        )


class AskedGauges(Collector):
    """Gauges whose values are asked for when the page is read, by whoever was told of last under a key.

    Args:
        families: of each name, what it says and which labels it has besides `labels`.
        labels: that every one has, first.
    """

    def __init__(
        self, families: Mapping[str, tuple[str, Sequence[str]]], labels: Sequence[str], *, registry: CollectorRegistry
    ) -> None:
        self._families = families
        self._label_names = tuple(labels)
        self._asked: dict[Labels, Ask] = {}
        self._heads = {name: self._spelling(name) for name in families}
        registry.register(self)

    def watch(self, ask: "Ask", *values: str) -> None:
        """Ask this from now on for the series with these values of the labels."""
        self._asked[values] = ask

    def forget(self, *values: str) -> None:
        """Ask no more."""
        self._asked.pop(values, None)

    def collect(self) -> Iterator[Metric]:
        """The families as they are now."""
        families = {family.name: family for family in self.describe()}
        found: Asked = {name: {} for name in families}
        for values, ask in list(self._asked.items()):
            _note(values, ask, found)
        for name, of_family in found.items():
            for labels, value in of_family.items():
                families[name].add_metric(labels, value)
        yield from families.values()

    def texts(self, *, open_metrics: bool) -> Iterator[str]:
        """The families as the page has them."""
        found: Asked = {name: {} for name in self._families}
        for values, ask in list(self._asked.items()):
            _note(values, ask, found)
            yield ""  # others may go on
        for name, of_family in found.items():
            head = heading(name, self._families[name][0], "gauge", open_metrics=open_metrics)
            yield from some_lines(head, self._heads[name].of(of_family).values(), of_family.values())

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Their names, for the registry."""
        for name, (documentation, labels) in self._families.items():
            yield GaugeMetricFamily(name, documentation, labels=[*self._label_names, *labels])

    def _spelling(self, name: str) -> Spellings[str]:
        labels = (*self._label_names, *self._families[name][1])
        return Spellings(lambda values: f"{name}{labelled(labels, values)} ")


Ask = Callable[[], Iterable[Sequence[str | float]]]
"""Gives, for each series, a family's name, the values of its own labels, and the value."""

Asked = dict[str, dict[Labels, float]]
"""What was told, by name of the family and values of the labels."""


def _note(values: Labels, ask: Ask, found: Asked) -> None:
    for name, *more, value in ask():
        found[str(name)][*values, *map(str, more)] = float(value)


def bucket_names(bounds: Sequence[float]) -> list[str]:
    """The values of the label `le`."""
    return [floatToGoString(bound) for bound in (*bounds, float("inf"))]  # type: ignore[no-untyped-call]


def _otel_labels(method: str, code: str) -> Labels:
    return "grpc", method.removeprefix("/"), code


def _exemplar(mark: Exemplar) -> OpenMetricsExemplar:
    return OpenMetricsExemplar({"trace_id": mark.trace_id}, mark.value, mark.at)
