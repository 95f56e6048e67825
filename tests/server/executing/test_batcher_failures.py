"""Models, requests and replies that fail: only the guilty one gets an error, and the batcher lives on."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import InferenceRequest, Timing
from inferry_server.errors import DeadlineExceededError, InferenceError, InvalidRequestError
from inferry_server.executing.batcher import DynamicBatcher
from testkit.batchers import Observer, Reply, ScriptedModel, batching, request, values
from testkit.clock import ManualClock
from testkit.waiting import SOON_S


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


def test_a_request_whose_parts_do_not_fit_together_fails_alone_and_the_model_lives_on() -> None:
    def run(inputs: Arrays) -> Arrays:
        x = inputs["x"]
        return {"y": np.zeros((len(x), int(x.max())), np.float32)}  # as wide as what came says

    with batching(run) as (batcher, observer):
        large, after = Reply(), Reply()
        x = np.array([[1], [1], [1], [1], [2], [2]], np.float32)
        batcher.submit(InferenceRequest({"x": x}, 6, large))
        outcome = large.outcome()
        assert isinstance(outcome, InferenceError)
        assert "rows of shape [2] and of [1]" in str(outcome)
        batcher.submit(InferenceRequest({"x": x[:1]}, 1, after))
        answer = after.outcome()
        assert not isinstance(answer, Exception)
        assert answer["y"].shape == (1, 1)
    assert (observer.done, observer.failed) == (1, 1)


def test_one_bad_part_fails_a_large_request_once_and_nobody_else() -> None:
    model = ScriptedModel()
    model.held = False
    with batching(model.run) as (batcher, _):
        large, other = request(0, 1, 2, 3, 4, -1, 6, 7, 8, 9), request(50)
        batcher.submit(large[0])
        batcher.submit(other[0])
        assert isinstance(large[1].outcome(), InferenceError)
        assert values(other[1].outcome()) == [100]


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


def test_outputs_that_are_not_row_by_row_are_not_shared_out() -> None:
    def distinct(inputs: Arrays) -> Arrays:
        return {"y": np.unique(inputs["x"])}

    policy = BatchingPolicy(max_batch_size=4, max_request_rows=4, max_queue_size=8, max_queue_bytes=1 << 20)
    batcher = DynamicBatcher("test", [distinct], policy, observer=Observer())
    (first, one), (second, two) = request(1, 1), request(1, 2)
    for queued in (first, second):
        batcher.submit(queued)  # before it starts, so that they ride together
    batcher.start()
    answers = one.outcome(), two.outcome()  # to each what the model answers it alone
    assert [answer["y"].tolist() for answer in answers if isinstance(answer, dict)] == [[1], [1, 2]]
    assert batcher.close(SOON_S)


def test_a_model_that_drops_rows_computes_each_request_alone_rather_than_mix_outputs_up() -> None:
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
    assert values(outcomes[1]) == []
    assert values(outcomes[2]) == [7]


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


def test_the_time_of_a_run_that_failed_teaches_nothing() -> None:
    clock = ManualClock()

    def run(inputs: Arrays) -> Arrays:
        clock.advance(1.0)
        if inputs["x"][0, 0] < 0:
            clock.advance(100.0)
            raise InferenceError("negative")
        return {"y": inputs["x"]}

    with batching(run, clock=clock) as (batcher, _):
        for value in (1, 1, -1):
            asked, reply = request(value)
            batcher.submit(asked)
            reply.outcome()
        in_time, reply = request(1, deadline=clock.now + 1.5)  # a second is what a run takes
        batcher.submit(in_time)
        assert values(reply.outcome()) == [1]
        too_late, _ = request(1, deadline=clock.now + 0.5)
        with pytest.raises(DeadlineExceededError):
            batcher.submit(too_late)
