"""Our counters and histograms, compared with the Prometheus client's own: the page must say the same."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from inferry_server.telemetry import counters

BOUNDS = (0.1, 0.5, 2)
LABELS = st.sampled_from(["a", "b"])
# Eighths, whose sums are exact in any order; the bounds among them.
VALUES = st.one_of(st.sampled_from([0.1, 0.5, 2.0]), st.integers(-8, 80).map(lambda eighths: eighths / 8))


def page(registry: CollectorRegistry) -> list[str]:
    """What it says, without the times of creation, which nobody reads."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.tuples(LABELS, st.integers(1, 5))))
def test_counters_say_what_prometheus_does(steps: list[tuple[str, int]]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    expected = Counter("things", "Things.", ["kind"], registry=theirs)
    counter = counters.Counter("things", "Things.", ["kind"], registry=ours)
    for kind, amount in steps:
        expected.labels(kind).inc(amount)
        counter.labels(kind).inc(amount)
    assert page(ours) == page(theirs)


@given(st.lists(st.tuples(LABELS, st.lists(VALUES, min_size=1))))
def test_histograms_say_what_prometheus_does(steps: list[tuple[str, list[float]]]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    expected = Histogram("seconds", "Time.", ["kind"], buckets=BOUNDS, registry=theirs)
    histogram = counters.Histogram("seconds", "Time.", ["kind"], buckets=BOUNDS, registry=ours)
    for kind, values in steps:
        for value in values:
            expected.labels(kind).observe(value)
        histogram.labels(kind).observe(values[0])
        histogram.labels(kind).observe_all(values[1:])
    assert [line for line in page(ours) if "_sum" not in line] == [line for line in page(theirs) if "_sum" not in line]
    sums = {kind: histogram.labels(kind).read()[1] for kind, _ in steps}
    for kind, total in sums.items():
        assert abs(total - sum(sum(values) for name, values in steps if name == kind)) < 1e-9


def test_a_series_that_was_removed_is_gone_whoever_still_counts() -> None:
    registry = CollectorRegistry()
    counter = counters.Counter("things", "Things.", ["kind"], registry=registry)
    straggler = counter.labels("a")
    counter.remove("a")
    counter.remove("never there")
    straggler.inc()
    assert not [line for line in page(registry) if not line.startswith("#")]
