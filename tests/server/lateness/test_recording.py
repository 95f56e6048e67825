"""What a batcher keeps of its late requests: a scripted model, and a clock that the test moves."""

import threading
from typing import Any

import numpy as np
import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import InferenceRequest
from inferry_server.errors import OverloadedError, QueueFullError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.lateness.ring import LateRequests
from inferry_server.lateness.telling import log_late
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.statistics import VersionObserver
from testkit.batchers import Reply, ScriptedModel
from testkit.clock import ManualClock

BEGAN = 100.0


class Late:
    """A batcher whose model takes its time by a clock that stands still else."""

    def __init__(self, *, seconds_a_run: float = 1.0, objective_s: float | None = None, **limits: int) -> None:
        self.clock = ManualClock()
        self.clock.now = BEGAN
        self.model = ScriptedModel()
        self.ring = LateRequests(8, objective_s=objective_s)
        metrics = ServerMetrics().for_model("m", "1")
        self.observer = VersionObserver(metrics, self.ring, clock=self.clock)
        self._seconds = seconds_a_run
        defaults = {"max_batch_size": 4, "max_request_rows": 8, "max_queue_size": 8, "max_queue_bytes": 1 << 20}
        self.batcher = DynamicBatcher(
            "m-1", [self._run], BatchingPolicy(**defaults | limits), observer=self.observer,
            latency=LatencyModel(4), clock=self.clock, late=self.ring,
        )  # fmt: skip
        self.batcher.start()

    def _run(self, inputs: Arrays) -> Arrays:
        outputs = self.model.run(inputs)
        self.clock.advance(self._seconds)
        return outputs

    def send(self, rows: int, *, name: str = "", arrived_at: float = 0.0) -> Reply:
        reply = Reply()
        x: Any = np.ones((rows, 1))
        self.batcher.submit(InferenceRequest({"x": x}, rows, reply, request_id=name, arrived_at=arrived_at))
        return reply


def settled(late: Late) -> None:
    """Close, after which nothing more is kept."""
    assert late.batcher.close(10)


def test_the_parts_of_a_request_add_up_to_its_latency() -> None:
    late = Late(seconds_a_run=2.0)
    first = late.send(1, name="first", arrived_at=BEGAN - 0.5)
    late.model.started.get(timeout=10)
    second = late.send(2, name="second")
    third = late.send(1, name="third")
    late.clock.advance(0.25)
    late.model.release()
    for reply in (first, second, third):
        reply.outcome()
    settled(late)
    kept = {request.request_id: request for request in late.ring.slowest()}
    assert (kept["first"].read_s, kept["first"].queue_s, kept["first"].compute_s) == (0.5, 0.0, 2.25)
    assert kept["first"].rows_ahead == 0
    # Both waited for the first one's batch, and rode together in the next one.
    assert (kept["second"].queue_s, kept["second"].compute_s) == (2.25, 2.0)
    assert (kept["second"].rows_ahead, kept["third"].rows_ahead) == (0, 2)
    assert kept["third"].batch is not None
    assert (kept["third"].batch.rows, kept["third"].batch.requests) == (3, 2)
    for request in kept.values():
        assert request.total_s == pytest.approx(request.ended_at - (BEGAN - (0.5 if request is kept["first"] else 0)))


def test_the_time_between_the_batches_of_a_large_request_is_waiting() -> None:
    late = Late(seconds_a_run=1.0)
    late.model.release()
    late.send(8, name="large").outcome()
    settled(late)
    (request,) = late.ring.slowest()
    assert (request.compute_s, request.queue_s, request.total_s) == (2.0, 0.0, 2.0)


def test_what_has_no_room_is_kept_with_what_was_before_it() -> None:
    late = Late()
    late.send(1)
    late.model.started.get(timeout=10)
    late.send(8)
    x: Any = np.ones((2, 1))
    refused = InferenceRequest({"x": x}, 2, Reply(), request_id="n" * 1000)
    with pytest.raises(QueueFullError) as raised:
        late.batcher.submit(refused)
    late.observer.request_refused(raised.value, refused)
    late.model.release()
    settled(late)
    (request,) = late.ring.refused()
    assert (request.reason, request.rows, request.rows_ahead) == ("queue_full_rows", 2, 8)
    assert len(request.request_id) <= 128
    assert request.total_s == 0.0


def test_the_log_names_the_request_the_parts_and_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    late = Late(seconds_a_run=3.0, objective_s=1.0)
    late.model.release()
    late.send(1, name="mine").outcome()
    settled(late)
    log_late("m", "1", late.ring.tick(late.clock.now))
    (record,) = caplog.records
    assert record.getMessage() == "a request was late: 3000.0 ms: the model took 3000.0 of 3000.0 ms for 1 row"
    assert vars(record)["request_id"] == "mine"
    assert vars(record)["compute_ms"] == "3000.0"
    log_late("m", "1", late.ring.tick(late.clock.now + 2))
    assert len(caplog.records) == 1


def test_a_request_id_writes_no_line_of_its_own_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    late = Late(seconds_a_run=3.0, objective_s=1.0)
    late.model.release()
    late.send(1, name="é\nERROR \x1b[2J").outcome()
    settled(late)
    log_late("m", "1", late.ring.tick(late.clock.now))
    assert vars(caplog.records[0])["request_id"] == "é\\nERROR \\x1b[2J"


def test_a_request_that_cannot_be_kept_takes_nobodys_reply_away(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late()
    late.model.release()
    monkeypatch.setattr(late.ring, "keep_slow", lambda _: 1 / 0)
    for _ in range(2):
        assert not isinstance(late.send(1).outcome(), Exception)
    settled(late)


def test_any_thread_may_keep_and_read() -> None:
    ring = LateRequests(4)
    late = Late()
    late.model.release()
    late.send(1).outcome()
    settled(late)
    (request,) = late.ring.slowest()

    def work() -> None:
        for turn in range(200):
            ring.keep_slow(request)
            ring.keep_refused(request)
            ring.tick(float(turn))
            assert len(ring.slowest()) <= 4
            assert len(ring.refused()) <= 4

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_an_overloaded_server_is_told_by_its_error() -> None:
    late = Late()
    late.observer.request_refused(OverloadedError(late_s=0.1, retry_after_s=0.1))  # unread: nothing is known of it
    settled(late)
    assert late.ring.refused() == []
