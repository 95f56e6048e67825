"""The batcher's thread with a scripted model: events say when a batch finishes, nothing sleeps."""

import gc
import queue
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_proto.datatypes import Arrays
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.request import InferenceRequest, Timing, pad_to_ladder
from inferry_server.errors import DeadlineExceededError, InferenceError, QueueFullError, ShuttingDownError
from inferry_server.executing.batcher import DynamicBatcher
from testkit.batchers import Observer, Reply, ScriptedModel, batching, request, values
from testkit.clock import ManualClock
from testkit.waiting import SOON_S


def test_what_arrives_while_the_device_is_busy_rides_together() -> None:
    model = ScriptedModel()
    with batching(model.run) as (batcher, observer):
        requests = [request(float(i)) for i in range(6)]
        batcher.submit(requests[0][0])
        assert model.started.get(timeout=SOON_S) == 1  # alone: the device was idle, so nobody waits
        for queued, _ in requests[1:]:
            batcher.submit(queued)
        model.release()
        assert [values(reply.outcome()) for _, reply in requests] == [[2.0 * i] for i in range(6)]
    assert observer.batch_rows == [1, 4, 1]


@pytest.mark.parametrize("value", [1, -1])
def test_a_request_cancelled_while_it_is_computed_gets_no_reply_whether_it_fails_or_not(value: float) -> None:
    model = ScriptedModel()
    with batching(model.run) as (batcher, observer):
        cancelled, cancelled_reply = request(value)
        batcher.submit(cancelled)
        model.started.get(timeout=SOON_S)
        assert batcher.cancel(cancelled)
        model.release()
    assert cancelled_reply.outcomes.empty()
    assert (observer.done, observer.failed) == (0, 0)


def test_a_request_is_counted_before_its_reply_leaves() -> None:
    """Whoever has an answer finds it in the statistics."""
    counted: queue.Queue[int] = queue.Queue()

    class Counting(Reply):
        def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
            return lambda: counted.put(observer.done)

    model = ScriptedModel()
    model.held = False
    with batching(model.run) as (batcher, observer):
        for _ in range(3):
            batcher.submit(InferenceRequest({"x": np.ones((1, 1))}, 1, Counting()))
        seen = [counted.get(timeout=SOON_S) for _ in range(3)]
        assert all(done >= answer for answer, done in enumerate(seen, start=1))


def test_a_cancelled_request_is_neither_computed_nor_replied_to_and_its_neighbours_are() -> None:
    model = ScriptedModel()
    with batching(model.run) as (batcher, observer):
        first, cancelled, neighbour = request(0), request(1), request(2)
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        batcher.submit(cancelled[0])
        batcher.submit(neighbour[0])
        assert batcher.cancel(cancelled[0])
        model.release()
        assert values(neighbour[1].outcome()) == [4]
        assert values(first[1].outcome()) == [0]
        assert cancelled[1].outcomes.empty()
    assert observer.batch_rows == [1, 1]


def test_a_request_that_expires_in_the_queue_is_told_so_and_not_computed() -> None:
    model, clock = ScriptedModel(), ManualClock()
    with batching(model.run, clock=clock) as (batcher, observer):
        first, late, patient = request(0), request(1, deadline=5), request(2, deadline=50)
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        batcher.submit(late[0])
        batcher.submit(patient[0])
        clock.advance(10.0)
        model.release()
        assert isinstance(late[1].outcome(), DeadlineExceededError)
        assert values(patient[1].outcome()) == [4]
    assert observer.batch_rows == [1, 1]


def test_a_full_queue_refuses_with_a_hint_of_when_to_come_back() -> None:
    model = ScriptedModel()
    with batching(model.run, max_queue_size=4) as (batcher, _):
        first, fits = request(0), request(1, 2, 3, 4)
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        batcher.submit(fits[0])
        assert batcher.queued(Lane.INTERACTIVE).rows == 4
        with pytest.raises(QueueFullError) as caught:
            batcher.submit(request(5)[0])
        assert caught.value.retry_after_s > 0
        model.release()
        assert values(fits[1].outcome()) == [2, 4, 6, 8]


def test_closing_finishes_what_is_queued_and_refuses_what_is_new() -> None:
    model = ScriptedModel()
    with batching(model.run) as (batcher, _):
        first, queued = request(0), request(1)
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        batcher.submit(queued[0])
        closing = threading.Thread(target=batcher.close, args=(SOON_S,))
        closing.start()
        model.release()
        closing.join(SOON_S)
        assert values(queued[1].outcome()) == [2]
        with pytest.raises(ShuttingDownError):
            batcher.submit(request(2)[0])


def test_closing_does_not_wait_for_a_fuller_batch() -> None:
    model = ScriptedModel()
    model.held = False
    with batching(model.run, max_queue_delay_s=3600) as (batcher, _):
        queued, reply = request(1)
        batcher.submit(queued)
        assert batcher.close(SOON_S)
        assert values(reply.outcome()) == [2]


def test_closing_without_patience_tells_those_who_still_wait() -> None:
    model = ScriptedModel()
    with batching(model.run) as (batcher, observer):
        first, queued = request(0), request(1)
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        batcher.submit(queued[0])
        assert not batcher.close(0)
        assert isinstance(queued[1].outcome(), ShuttingDownError)
        assert observer.refused == ["shutting_down"]
        model.release()
        assert values(first[1].outcome()) == [0]


def test_a_delay_lets_an_idle_device_wait_for_a_full_batch() -> None:
    model = ScriptedModel()
    model.held = False
    with batching(model.run, max_queue_delay_s=SOON_S) as (batcher, observer):
        requests = [request(float(i)) for i in range(4)]
        for queued, _ in requests:
            batcher.submit(queued)
        assert [values(reply.outcome()) for _, reply in requests] == [[0], [2], [4], [6]]
    assert observer.batch_rows == [4]


def test_a_request_larger_than_a_batch_is_cut_and_joined_in_order() -> None:
    model = ScriptedModel()
    model.held = False
    with batching(model.run) as (batcher, observer):
        large, other = request(*map(float, range(10))), request(50)
        batcher.submit(large[0])
        batcher.submit(other[0])
        assert values(large[1].outcome()) == [2.0 * i for i in range(10)]
        assert values(other[1].outcome()) == [100]
    assert observer.batch_rows[:2] == [4, 4]


def test_two_instances_compute_at_the_same_time() -> None:
    meet = threading.Barrier(2, timeout=SOON_S)

    def run(inputs: Arrays) -> Arrays:
        meet.wait()  # passed only by two runs together
        return {"y": inputs["x"]}

    with batching(run, run, max_batch_size=1) as (batcher, _):
        requests = [request(1), request(2)]
        for queued, _ in requests:
            batcher.submit(queued)
        assert [values(reply.outcome()) for _, reply in requests] == [[1], [2]]


def test_padding_repeats_a_real_row_and_reaches_the_model_and_nobody_else() -> None:
    seen = []

    def run(inputs: Arrays) -> Arrays:
        seen.append(inputs["x"][:, 0].tolist())
        return {"y": inputs["x"]}

    with batching(run, max_batch_size=8, pad_to=pad_to_ladder(8)) as (batcher, _):
        three = request(1, 2, 3)
        batcher.submit(three[0])
        assert values(three[1].outcome()) == [1, 2, 3]
    assert seen == [[1, 2, 3, 3]]


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(-1, 50), min_size=1, max_size=4), min_size=1, max_size=30))
def test_every_request_gets_its_own_outputs_whatever_batch_it_was_in(rows: list[list[int]]) -> None:
    model = ScriptedModel()
    with batching(model.run, max_queue_size=1000) as (batcher, observer):
        requests = [request(*map(float, values_)) for values_ in rows]
        for queued, _ in requests:
            batcher.submit(queued)
        model.release()
        for values_, (_, reply) in zip(rows, requests, strict=True):
            outcome = reply.outcome()
            if min(values_) < 0:
                assert isinstance(outcome, InferenceError)
            else:
                assert values(outcome) == [2.0 * value for value in values_]
    assert max(observer.batch_rows, default=0) <= 4


def test_a_closed_batcher_lets_its_model_go_at_once() -> None:
    """Without a garbage collection: versions come and go, and their memory with them."""

    class Model:
        def run(self, inputs: Arrays) -> Arrays:
            return inputs

    policy = BatchingPolicy(max_batch_size=4, max_request_rows=4, max_queue_size=9, max_queue_bytes=1 << 20)
    model = Model()
    gone = weakref.ref(model)
    batcher = DynamicBatcher("test", [model.run], policy, observer=Observer())
    batcher.start()
    assert batcher.close(SOON_S)
    gc.disable()
    try:
        del batcher, model
        assert gone() is None
    finally:
        gc.enable()
