"""What the metrics page says, without a server."""

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.errors import QueueFullError, ServingError
from inferry_server.rpc.call import StreamCall, StreamReceiver
from inferry_server.rpc.router import Router
from inferry_server.rpc.statuses import CANCELLED, OK, status_of
from inferry_server.runtime.gpu_use import GpuUse
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.model_metrics import ModelMetrics
from inferry_server.telemetry.server_facts import ServerFacts
from inferry_server.transport import connections
from inferry_server.transport.connections import ConnectionCount
from testkit.clock import ManualClock

UNARY, STREAM = "/test/Unary", "/test/Stream"

# From a server on port 8001 (1F41) with two clients, one that is just leaving, and other sockets around.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000 100 0 0 10 0
   1: 0100007F:1F41 0100007F:C2A4 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0000 20 4 30 10 -1
   2: 0100007F:1F41 0100007F:C2A6 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0000 20 4 30 10 -1
   3: 0100007F:1F41 0100007F:C2A8 06 00000000:00000000 03:00000C1D 00000000     0        0 0 3 0000
   4: 0100007F:C2A4 0100007F:1F41 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0000 20 4 30 10 -1
   5: 0100007F:1F42 0100007F:C2AA 01 00000000:00000000 00:00000000 00000000     0        0 5 1 0000 20 4 30 10 -1
"""
TABLE_6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000001000000:1F41 00000000000000000000000001000000:D0F2 01 00000000:00000000 00:00000000
"""


def series(metrics: ServerMetrics) -> dict[tuple[str, ...], float]:
    """Every series by name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
    }


def about(metrics: ServerMetrics, model: str) -> set[str]:
    return {name for name, *labels in series(metrics) if model in labels}


def start_serving(metrics: ServerMetrics, model: str, provider: str = "CPU") -> None:
    version = metrics.for_model(model, "1")
    version.serving(provider)
    version.request_refused("overloaded")


def count_batch(version: ModelMetrics, *, rows: int, compute_s: float) -> None:
    sums = (rows, 1, 0.1, 0.2, compute_s, 0.3, compute_s, 10, 20)
    version.batches.add(runs=[rows], compute_s=[compute_s], queue_s=[0.2], total_s=[0.6 + compute_s], sums=sums)


def never_opened(call: StreamCall) -> StreamReceiver:
    raise AssertionError(call)


def test_connections_are_those_established_to_the_port_from_outside(tmp_path: Path) -> None:
    def count(port: int, *tables: str) -> int:
        files = [tmp_path / str(i) for i in range(3)]  # the last is not there
        for file, table in zip(files, tables, strict=False):
            file.write_text(table)
        return ConnectionCount(port, files)()

    assert count(8001, TABLE, "") == 2
    assert count(8002, TABLE, "") == 1
    assert count(8003, TABLE, "") == 0
    assert count(8001, TABLE, TABLE_6) == 2  # it listens in the first alone, and the second is not read
    assert count(8001, "", TABLE_6) == 1
    assert count(8001, "", TABLE_6.splitlines()[0]) == 0
    assert count(8001, "", "") == 0


@given(st.integers(1, 300), st.lists(st.sampled_from(TABLE.splitlines(keepends=True)), max_size=12), st.booleans())
def test_connections_are_counted_in_pieces_of_any_size(piece: int, rows: list[str], ends: bool) -> None:
    text = "".join(rows) if ends else "".join(rows).removesuffix("\n")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "_PIECE", piece)
        (Path(folder) / "tcp").write_text(text)
        expected = sum(row.split()[1:4:2] == ["0100007F:1F41", "01"] for row in rows)
        assert connections.count_sockets(Path(folder) / "tcp", 8001, "01") == expected


@pytest.mark.parametrize(("took_s", "counts"), [(0.0, 10), (0.002, 5), (1.0, 2)])
def test_connections_are_counted_as_seldom_as_it_is_dear(tmp_path: Path, took_s: float, counts: int) -> None:
    (tmp_path / "tcp").write_text(TABLE)
    clock, cpu = ManualClock(), ManualClock()
    asked: list[float] = []

    def cpu_clock() -> float:
        asked.append(clock())
        cpu.advance(took_s)
        return cpu()

    count = ConnectionCount(8001, [tmp_path / "tcp"], clock=clock, cpu_clock=cpu_clock)
    for _ in range(10):
        assert count() == 2
        clock.advance(1.0)
    assert len(asked) == 2 * counts


@given(st.lists(st.tuples(st.sampled_from([UNARY, STREAM]), st.booleans(), st.integers(0, 3)), max_size=30))
def test_received_is_the_sum_of_outcomes_and_what_is_in_flight(calls: list[tuple[str, bool, int]]) -> None:
    metrics = ServerMetrics()
    router = Router(metrics)
    router.add_streams({STREAM: never_opened})
    outcomes = (OK, CANCELLED, status_of(ServingError()), status_of(KeyError()))
    in_flight = streams = 0
    for path, ends, outcome in calls:
        account = router.received(path, ())
        if ends:
            account.ended(outcomes[outcome])
        else:
            in_flight += 1
            streams += path == STREAM
    page = series(metrics)
    received = sum(value for (name, *_), value in page.items() if name == "inferry_requests_received_total")
    ended = sum(value for (name, *_), value in page.items() if name == "inferry_requests_outcome_total")
    assert received == len(calls) == ended + in_flight
    assert page.get(("inferry_open_streams", STREAM), 0) == streams
    assert ("inferry_open_streams", UNARY) not in page


def test_gpus_are_told_of_where_a_version_computes_on_one() -> None:
    served, read = [SimpleNamespace(gpus=())], [GpuUse(0, 100, 1000, 0.25), GpuUse(1, 101, 1001, None)]
    registry: Any = SimpleNamespace(served=lambda: served, names=list)
    decoding: Any = SimpleNamespace(unfinished=3)
    gpus: Any = SimpleNamespace(read=lambda: read)
    metrics, facts = ServerMetrics(), ServerFacts(registry, decoding, 77, gpus=gpus)
    metrics.server_facts.watch(facts.ask)
    names = ("inferry_gpu_memory_used_bytes", "inferry_gpu_memory_total_bytes", "inferry_gpu_utilization_ratio")
    page = series(metrics)
    assert (page["inferry_open_connections_limit",], page["inferry_decoding_requests",]) == (77, 3)
    assert not any(name in names for name, *_ in page)
    served[:] = [SimpleNamespace(gpus=(0,))]
    told = {key: value for key, value in series(metrics).items() if key[0] in names}
    assert told == {
        ("inferry_gpu_memory_used_bytes", "0"): 100, ("inferry_gpu_memory_used_bytes", "1"): 101,
        ("inferry_gpu_memory_total_bytes", "0"): 1000, ("inferry_gpu_memory_total_bytes", "1"): 1001,
        ("inferry_gpu_utilization_ratio", "0"): 0.25,
    }  # fmt: skip


def test_a_version_whose_batch_took_far_too_long_is_counted() -> None:
    metrics = ServerMetrics()
    version = metrics.for_model("a", "1")
    assert series(metrics)["inferry_inline_overruns_total", "a", "1"] == 0
    version.overran(1.5)
    assert series(metrics)["inferry_inline_overruns_total", "a", "1"] == 1


def test_an_outcome_has_code_and_reason() -> None:
    metrics = ServerMetrics()
    account = Router(metrics).received(UNARY, ())
    account.ended(status_of(QueueFullError("rows", limit=1, actual=2, retry_after_s=1)))
    assert series(metrics)["inferry_requests_outcome_total", UNARY, "RESOURCE_EXHAUSTED", "queue_full_rows"] == 1


def test_series_go_with_the_last_instance_of_a_version_and_no_straggler_brings_one_back() -> None:
    metrics = ServerMetrics()
    start_serving(metrics, "a")
    start_serving(metrics, "a", provider="CUDA")  # the same version, loaded anew
    start_serving(metrics, "b")
    straggler = metrics.for_model("a", "1")
    page = series(metrics)
    assert ("inferry_model_info", "a", "1", "CUDA") in page
    assert ("inferry_model_info", "a", "1", "CPU") not in page
    assert page["inferry_requests_refused_total", "a", "1", "overloaded"] == 2
    for _ in range(2):
        metrics.forget("a", "1")
    assert about(metrics, "a") == about(metrics, "b")
    metrics.forget("a", "1")
    straggler.request_refused("deadline_in_queue")
    assert not about(metrics, "a")
    assert about(metrics, "b")


def test_replicas_can_be_added_up() -> None:
    metrics = ServerMetrics()
    start_serving(metrics, "a")
    version = metrics.for_model("a", "1")
    count_batch(version, rows=1, compute_s=0.0)
    Router(metrics).received(UNARY, ()).ended(OK)
    kinds = {
        metric.name: metric.type for metric in metrics.registry.collect() if metric.name.startswith(("inferry", "rpc"))
    }
    assert set(kinds.values()) == {"counter", "gauge", "histogram"}  # quantiles of a summary add up to nothing
    buckets: dict[str, set[str]] = {}
    for metric in metrics.registry.collect():
        for sample in metric.samples:
            if metric.type == "histogram" and "le" in sample.labels:
                buckets.setdefault(metric.name, set()).add(sample.labels["le"])
    again = ServerMetrics()
    count_batch(again.for_model("other", "7"), rows=300, compute_s=20.0)
    Router(again).received("/other", ()).ended(CANCELLED)
    for metric in again.registry.collect():
        if metric.type == "histogram":
            assert {s.labels["le"] for s in metric.samples if "le" in s.labels} == buckets[metric.name]
    assert "+Inf" in buckets["inferry_compute_duration_seconds"]
