"""The metrics page, compared with what the Prometheus client writes of the same registry: not a byte may differ."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter as TheirCounter
from prometheus_client import Gauge, Info, Summary
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from inferry_server.telemetry import counters
from inferry_server.telemetry.exposition import PageRegistry, write_page, written
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.series import Exemplar

TEXT, OPEN = "text/plain;version=0.0.4", "application/openmetrics-text; version=1.0.0"
ACCEPTED = [
    "", TEXT, OPEN, "*/*", "application/openmetrics-text", f"{OPEN}; escaping=allow-utf-8",
    f"{OPEN}; escaping=values", f"{OPEN}; escaping=dots", "text/plain; version=1.0.0; escaping=allow-utf-8",
]  # fmt: skip
LABELS = st.text(st.sampled_from(['"', "\\", "\n", "a", "é", "{", ",", " "]), max_size=4)
VALUES = st.floats(allow_nan=False, width=32) | st.integers(0, 1 << 60)


def page(registry: PageRegistry, accept: str, names: tuple[str, ...] = ()) -> bytes:
    return b"".join(write_page(registry, accept, names)[0])


def fill(registry: PageRegistry, kind: str, values: list[float]) -> None:
    """A few families of every sort, with series of labels that need escaping."""
    things = counters.Counter("things", 'Things, "so" called\\\n.', ["kind", "a"], registry=registry)
    seconds = counters.Histogram("seconds", "Time.", ["kind"], buckets=(0.1, 2, 1e7), registry=registry)
    calls = counters.CallDurations((0.5, 1), registry=registry)
    level = counters.AskedGauges({"level": ("Level.", ("kind",)), "none": ("No.", ())}, ["model"], registry=registry)
    theirs = Gauge("theirs", 'A gauge, "so" called\\.', ["kind", "a"], registry=registry)
    for number, value in enumerate(values):
        theirs.labels(kind, str(number)).set(value)
    TheirCounter("their_counter", "Counted.", ["kind"], registry=registry).labels(kind).inc(3)
    Summary("their_summary", "Summed.", ["kind"], registry=registry).labels(kind).observe(3)
    Info("their", "Told.", registry=registry).info({"kind": kind})
    Gauge("their_bytes", "With a unit.", unit="bytes", registry=registry).set(1e7)

    def levels() -> Iterator[tuple[str | float, ...]]:
        for value in values:
            yield "level", kind, value

    level.watch(levels, "m")
    for value in values:
        things.labels(kind, "x").inc(int(max(0, min(value, 1e9))))
        seconds.labels(kind).observe(value)
        seconds.labels(kind).mark(Exemplar(value, f"trace{kind}", 1.5e9))
        calls.labels(f"/s/{kind}", "OK").observe(value)


@given(accept=st.sampled_from(ACCEPTED), kind=LABELS, values=st.lists(VALUES, max_size=4))
def test_pages_are_those_of_the_prometheus_client(accept: str, kind: str, values: list[float]) -> None:
    registry = PageRegistry()
    fill(registry, kind, values)
    encode, content_type = choose_encoder(accept)
    assert page(registry, accept) == page(registry, accept) == encode(registry)  # the second from what was kept
    assert write_page(registry, accept)[1] == content_type
    assert page(registry, accept, ("theirs",)) == encode(registry.restricted_registry(["theirs"]))


@given(VALUES | st.integers(-5, 5) | st.sampled_from([1e6, 999_999, 999_999.5, float("inf"), float("nan")]))
def test_values_are_read_as_they_were(value: float) -> None:
    assert float(written(value)) == pytest.approx(value, rel=1e-15, nan_ok=True)


def test_a_page_comes_in_short_pieces_however_many_models_there_are() -> None:
    metrics, models = ServerMetrics(), 100
    for model in map(str, range(models)):
        metrics.for_model(model, "1").watch(lambda: [("inferry_queue_rows", "interactive", 0)])
        metrics.for_method(f"/{model}", streaming=False).ended(code="OK", reason="", seconds=1.0)
    pieces = list(write_page(metrics.registry, OPEN)[0])
    assert sum(1 for piece in pieces if not piece) == models  # each was asked alone
    assert max(piece.count(b"\n") for piece in pieces) <= 32
    assert all(piece.count(b"# TYPE ") <= 1 for piece in pieces)
    page = b"".join(pieces).decode()
    assert page.count("\n") > 100 * models
    assert len(list(text_string_to_metric_families(page))) > 40  # type: ignore[no-untyped-call]


def test_series_that_are_gone_leave_nothing_behind() -> None:
    registry = PageRegistry()
    things = counters.Counter("things", "Things.", ["kind"], registry=registry)
    seconds = counters.Histogram("seconds", "Time.", ["kind"], buckets=(1,), registry=registry)
    theirs = Gauge("theirs", "Theirs.", ["kind"], registry=registry)
    for kind in map(str, range(50)):
        theirs.labels(kind).set(1)
        things.labels(kind).inc()
        seconds.labels(kind).observe(1)
        assert page(registry, TEXT).count(b"kind=") == 1 + 4 + 1
        things.remove(kind)
        seconds.remove(kind)
        theirs.remove(kind)
    page(registry, TEXT)
    assert len(things._heads) == len(seconds._heads) == len(registry.kept) == 0
