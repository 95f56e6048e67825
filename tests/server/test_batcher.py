"""The batcher's thread with a scripted model: events say when a batch finishes, nothing sleeps."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_server.batching.assembly import PadTo, exact, pad_to_ladder
from inferry_server.batching.batcher import DynamicBatcher
from inferry_server.batching.gate import Seat
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.request import Arrays, InferenceRequest, Timing
from inferry_server.errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidRequestError,
    QueueFullError,
    ServingError,
    ShuttingDownError,
)

SOON_S = 10.0  # no test should take it; none waits longer


class Reply:
    """Collects the outcome of one request."""

    def __init__(self) -> None:
        self.outcomes: queue.Queue[Arrays | Exception] = queue.Queue()

    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        assert timing.queue_s >= 0
        assert timing.compute_s >= 0
        answer = {name: array.copy() for name, array in outputs.items()}
        return lambda: self.outcomes.put(answer)

    def fail(self, error: Exception) -> None:
        self.outcomes.put(error)

    def outcome(self) -> Arrays | Exception:
        outcome = self.outcomes.get(timeout=SOON_S)
        assert self.outcomes.empty()
        return outcome


class Observer:
    def __init__(self) -> None:
        self.batch_rows: list[int] = []
        self.done = self.failed = 0
        self.refused: list[str] = []

    def batch_done(self, *, rows: int, assembly_s: float, compute_s: float) -> None:
        self.batch_rows.append(rows)

    def request_done(self, *, rows: int, timing: Timing, output_s: float, total_s: float) -> None:
        self.done += 1

    def request_failed(self, *, total_s: float) -> None:
        self.failed += 1

    def request_refused(self, error: ServingError) -> None:
        self.refused.append(error.kind)


class ScriptedModel:
    """Doubles its input; every run waits until the test lets it go, and -1 makes it fail."""

    def __init__(self) -> None:
        self.started: queue.Queue[int] = queue.Queue()
        self.go = threading.Semaphore(0)
        self.held = True

    def run(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        self.started.put(len(x))
        if self.held:
            assert self.go.acquire(timeout=SOON_S)
        if (x < 0).any():
            raise InferenceError("negative")
        return {"y": 2 * x}

    def release(self) -> None:
        self.held = False
        self.go.release()


def test_a_request_whose_parts_do_not_fit_together_fails_alone_and_the_model_lives_on() -> None:
    def run(inputs: Arrays) -> Arrays:
        x = inputs["x"]
        return {"y": np.zeros((len(x), int(x.max())), np.float32)}  # as wide as what came says

    with batching(run) as (batcher, observer):
        large, after = Reply(), Reply()
        values = np.array([[1], [1], [1], [1], [2], [2]], np.float32)
        batcher.submit(InferenceRequest({"x": values}, 6, large))
        outcome = large.outcome()
        assert isinstance(outcome, InferenceError)
        assert "rows of shape [2] and of [1]" in str(outcome)
        batcher.submit(InferenceRequest({"x": values[:1]}, 1, after))
        answer = after.outcome()
        assert not isinstance(answer, Exception)
        assert answer["y"].shape == (1, 1)
    assert (observer.done, observer.failed) == (1, 1)


@contextmanager
def batching(
    *instances: Callable[[Arrays], Arrays],
    clock: Callable[[], float] = time.monotonic,
    pad_to: PadTo = exact,
    seats: Sequence[Seat] | None = None,
    **limits: float,
) -> Iterator[tuple[DynamicBatcher, Observer]]:
    observer = Observer()
    defaults = {"max_batch_size": 4, "max_request_rows": 16, "max_queue_size": 16, "max_queue_bytes": 1 << 20}
    policy = BatchingPolicy(**defaults | limits)  # type: ignore[arg-type]
    batcher = DynamicBatcher("test", instances, policy, observer=observer, clock=clock, pad_to=pad_to, seats=seats)
    batcher.start()
    try:
        yield batcher, observer
    finally:
        batcher.close(SOON_S)


def request(*values: float, deadline: float | None = None) -> tuple[InferenceRequest, Reply]:
    reply = Reply()
    return InferenceRequest({"x": np.array(values)[:, None]}, len(values), reply, deadline=deadline), reply


def values(outcome: Arrays | Exception) -> list[float]:
    assert not isinstance(outcome, Exception), outcome
    return [float(value) for value in outcome["y"][:, 0]]


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


def test_a_failing_member_fails_alone() -> None:
    model = ScriptedModel()
    with batching(model.run) as (batcher, _):
        first, good, bad, also_good = request(0), request(1), request(-1), request(2)
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        for queued, _ in (good, bad, also_good):
            batcher.submit(queued)
        model.release()
        assert values(good[1].outcome()) == [2]
        assert isinstance(bad[1].outcome(), InferenceError)
        assert values(also_good[1].outcome()) == [4]


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


def test_a_request_is_counted_before_its_answer_leaves() -> None:
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
        assert [counted.get(timeout=SOON_S) for _ in range(3)] == [1, 2, 3]


def test_the_time_of_a_run_that_failed_teaches_nothing() -> None:
    now = [0.0]

    def run(inputs: Arrays) -> Arrays:
        now[0] += 1.0
        if inputs["x"][0, 0] < 0:
            now[0] += 100.0
            raise InferenceError("negative")
        return {"y": inputs["x"]}

    with batching(run, clock=lambda: now[0]) as (batcher, _):
        for value in (1, 1, -1):
            asked, reply = request(value)
            batcher.submit(asked)
            reply.outcome()
        in_time, reply = request(1, deadline=now[0] + 1.5)  # a second is what a run takes
        batcher.submit(in_time)
        assert values(reply.outcome()) == [1]
        too_late, _ = request(1, deadline=now[0] + 0.5)
        with pytest.raises(DeadlineExceededError):
            batcher.submit(too_late)


def test_a_member_cancelled_while_its_batch_failed_is_not_computed_again() -> None:
    model = ScriptedModel()
    with batching(model.run) as (batcher, observer):
        first, bad, cancelled, good = request(0), request(-1), request(1), request(2)
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        for queued, _ in (bad, cancelled, good):
            batcher.submit(queued)
        model.go.release()
        assert model.started.get(timeout=SOON_S) == 3
        assert batcher.cancel(cancelled[0])
        model.release()
        assert values(good[1].outcome()) == [4]
        assert isinstance(bad[1].outcome(), InferenceError)
        assert cancelled[1].outcomes.empty()
    assert observer.batch_rows == [1, 1]  # the first, and the good one alone; the others failed or were not run
    assert [model.started.get_nowait() for _ in range(2)] == [1, 1]
    assert model.started.empty()


def test_outputs_that_are_not_row_by_row_are_given_to_nobody() -> None:
    def distinct(inputs: Arrays) -> Arrays:
        return {"y": np.unique(inputs["x"])}

    policy = BatchingPolicy(max_batch_size=4, max_request_rows=4, max_queue_size=8, max_queue_bytes=1 << 20)
    batcher = DynamicBatcher("test", [distinct], policy, observer=Observer())
    (first, one), (second, two) = request(1, 1), request(1, 2)
    for queued in (first, second):
        batcher.submit(queued)  # before it starts, so that they ride together
    batcher.start()
    error = one.outcome()
    assert isinstance(error, InferenceError)
    assert "2 rows with output 'y' of shape [1]; expected a row for each" in str(error)
    answer = two.outcome()
    assert isinstance(answer, dict)
    assert answer["y"].tolist() == [1, 2]
    assert batcher.close(SOON_S)


def test_an_unexpected_error_of_the_model_fails_the_request_and_not_the_batcher() -> None:
    def run(inputs: Arrays) -> Arrays:
        if inputs["x"][0] < 0:
            raise ZeroDivisionError
        return {"y": inputs["x"]}

    with batching(run) as (batcher, _):
        bad, good = request(-1), request(1)
        batcher.submit(bad[0])
        assert isinstance(bad[1].outcome(), ZeroDivisionError)
        batcher.submit(good[0])
        assert values(good[1].outcome()) == [1]


def test_a_reply_that_raises_takes_no_other_reply_away() -> None:
    class BrokenReply(Reply):
        def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
            raise RuntimeError("cannot encode")

    model = ScriptedModel()
    with batching(model.run) as (batcher, _):
        first, good = request(0), request(1)
        broken = BrokenReply()
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        batcher.submit(InferenceRequest({"x": np.ones((1, 1))}, 1, broken))
        batcher.submit(good[0])
        model.release()
        assert values(good[1].outcome()) == [2]
        assert isinstance(broken.outcome(), InferenceError)


def test_a_cancelled_request_is_neither_computed_nor_answered_and_its_neighbours_are() -> None:
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
    model, now = ScriptedModel(), [0.0]
    with batching(model.run, clock=lambda: now[0]) as (batcher, observer):
        first, late, patient = request(0), request(1, deadline=5), request(2, deadline=50)
        batcher.submit(first[0])
        model.started.get(timeout=SOON_S)
        batcher.submit(late[0])
        batcher.submit(patient[0])
        now[0] = 10.0
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
        assert batcher.queued_rows(Lane.INTERACTIVE) == 4
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


def test_one_bad_part_fails_a_large_request_once_and_nobody_else() -> None:
    model = ScriptedModel()
    model.held = False
    with batching(model.run) as (batcher, _):
        large, other = request(0, 1, 2, 3, 4, -1, 6, 7, 8, 9), request(50)
        batcher.submit(large[0])
        batcher.submit(other[0])
        assert isinstance(large[1].outcome(), InferenceError)
        assert values(other[1].outcome()) == [100]


def test_a_model_that_drops_rows_fails_rather_than_mix_answers_up() -> None:
    gate = threading.Semaphore(0)

    def run(inputs: Arrays) -> Arrays:
        x = inputs["x"]
        assert gate.acquire(timeout=SOON_S)
        return {"y": x[x[:, 0] > 0]}

    with batching(run) as (batcher, _):
        requests = [request(value) for value in (5, -1, 7)]
        for queued, _ in requests:
            batcher.submit(queued)
        gate.release(10)
        outcomes = [reply.outcome() for _, reply in requests]
    assert values(outcomes[0]) == [5]
    assert isinstance(outcomes[1], InferenceError)
    assert "of shape [0, 1]; expected a row for each" in str(outcomes[1])
    assert values(outcomes[2]) == [7]


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
def test_every_request_gets_its_own_answer_whatever_batch_it_rode_in(rows: list[list[int]]) -> None:
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


def test_a_reply_that_cannot_be_given_where_it_was_to_go_fails_with_its_own_reason_and_alone() -> None:
    class TooLarge(Reply):
        def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
            raise InvalidRequestError("too large")

    model, refused, (other, other_reply) = ScriptedModel(), TooLarge(), request(2)
    model.held = False
    with batching(model.run) as (batcher, observer):
        batcher.submit(InferenceRequest({"x": np.ones(1, np.float32)}, 1, refused))
        batcher.submit(other)
        assert str(refused.outcome()) == "too large"
        assert values(other_reply.outcome()) == [4]
    assert (observer.done, observer.failed) == (1, 1)
