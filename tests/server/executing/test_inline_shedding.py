"""Requests are shed while more come than can be computed, whichever thread computes them."""

import dataclasses
import threading

import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import InferenceRequest
from inferry_server.errors import DeadlineExceededError, QueueFullError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.core_turns import ComputeGate
from inferry_server.executing.inline import InlineWork
from testkit.batchers import Observer, request, submit, values
from testkit.inline_batches import POLICY, Threads, reading
from testkit.waiting import SOON_S


def test_requests_are_shed_while_full_batches_wait_and_more_come_than_there_is_room_for() -> None:
    now = 100.0
    policy = dataclasses.replace(POLICY, max_queue_size=10)
    with reading(Threads().run, policy=policy, clock=lambda: now) as (batcher, inline, _):

        def sheds() -> bool:
            assert batcher.shedding is inline.shedding or not batcher.shedding.retry_after_s
            return batcher.shedding.retry_after_s > 0

        submit(batcher, *range(10))
        assert not sheds()
        with pytest.raises(QueueFullError):
            submit(batcher, 10)
        assert sheds()
        inline.pending.popleft()()
        assert sheds()
        inline.pending.popleft()()
        assert not sheds()  # two are left, and others may join them
        submit(batcher, 10, 11)
        assert sheds()
        inline.pending.popleft()()
        now += 0.3
        submit(batcher, *range(10))
        assert not sheds()


def test_a_request_without_a_chance_makes_nobody_shed() -> None:
    with reading(Threads().run) as (batcher, inline, _):
        submit(batcher, *range(4))
        with pytest.raises(DeadlineExceededError):
            batcher.submit(request(4, deadline=0.0)[0])
        assert not batcher.shedding.retry_after_s
        inline.pending.popleft()()


def test_shedding_ends_where_the_batch_is_left_to_another_thread() -> None:
    gate = ComputeGate(1)
    other = gate.seat("other", 1)
    other.acquire()
    policy = dataclasses.replace(POLICY, max_queue_size=4, max_request_rows=4)
    with reading(Threads().run, seat=gate.seat("mine", 1), policy=policy) as (batcher, inline, _):
        replies = submit(batcher, *range(4))
        with pytest.raises(QueueFullError):
            submit(batcher, 4)
        assert batcher.shedding.retry_after_s
        inline.pending.popleft()()
        assert not batcher.shedding.retry_after_s
        other.release(0.001, again=False)
        assert [values(reply.outcome()) for reply in replies] == [[2.0 * i] for i in range(4)]


class SlowModel:
    """A model whose own thread computes, with one request that it computes until the test lets it go."""

    def __init__(self) -> None:
        self._begun, self._may_go_on = threading.Semaphore(0), threading.Semaphore(0)
        policy, self.inline = dataclasses.replace(POLICY, max_queue_size=4, max_request_rows=4), InlineWork()
        self.batcher = DynamicBatcher(
            "test", [self._run], policy, observer=Observer(), inline=self.inline, clock=lambda: 100.0
        )
        self.batcher.start()
        self.replies = submit(self.batcher, 0)
        self.begins()

    def sheds(self) -> bool:
        return self.batcher.shedding.retry_after_s > 0

    def fill(self) -> list[InferenceRequest]:
        """Let a full batch wait, and one request find no room."""
        waiting = [request(value) for value in (1, 2, 3, 4)]
        for queued, reply in waiting:
            self.batcher.submit(queued)
            self.replies.append(reply)
        assert not self.sheds()  # nothing was refused
        with pytest.raises(QueueFullError):
            submit(self.batcher, 5)
        assert self.sheds()
        assert self.inline.shedding is None  # no call unread: it might be bulk, which has room
        return [queued for queued, _ in waiting]

    def go_on(self) -> None:
        self._may_go_on.release()

    def begins(self) -> None:
        """Wait until it computes the next batch."""
        assert self._begun.acquire(timeout=SOON_S)

    def _run(self, inputs: Arrays) -> Arrays:
        self._begun.release()
        assert self._may_go_on.acquire(timeout=SOON_S)
        return {"y": 2 * inputs["x"]}


def test_requests_are_shed_too_while_a_full_batch_waits_for_the_models_own_thread() -> None:
    model = SlowModel()
    model.fill()
    model.go_on()
    model.begins()
    assert not model.sheds()  # the full batch was taken: there is room
    model.go_on()
    assert [values(reply.outcome()) for reply in model.replies] == [[2.0 * i] for i in range(5)]
    assert model.batcher.close(SOON_S)


def test_shedding_ends_when_those_who_wait_give_up_so_an_idle_model_takes_requests() -> None:
    model = SlowModel()
    waiting = model.fill()
    assert model.batcher.cancel(waiting[0])
    assert not model.sheds()  # there is room
    submit(model.batcher, 6)
    with pytest.raises(QueueFullError):
        submit(model.batcher, 7)
    assert model.sheds()
    for queued in waiting[1:]:
        model.batcher.cancel(queued)
    assert not model.sheds()
    model.go_on()
    model.begins()
    model.go_on()
    assert model.batcher.close(SOON_S)


def test_a_version_that_is_closed_sheds_nobody_for_its_successor_may_be_the_only_one_served() -> None:
    model = SlowModel()
    model.fill()
    model.batcher.refuse_new()
    assert not model.sheds()
    model.go_on()
    model.begins()
    model.go_on()
    assert model.batcher.close(SOON_S)


def test_nobody_is_shed_for_bulk_requests_however_many_there_are() -> None:
    policy = dataclasses.replace(POLICY, max_queue_size=8)
    with reading(Threads().run, policy=policy) as (batcher, inline, _):
        for i in range(8):
            batcher.submit(request(i, lane=Lane.BULK)[0])
        with pytest.raises(QueueFullError):
            batcher.submit(request(8, lane=Lane.BULK)[0])
        submit(batcher, *range(4))
        assert not batcher.shedding.retry_after_s  # a full batch, and nobody interactive was refused
        while inline.pending:
            inline.pending.popleft()()
        submit(batcher, *range(8))
        with pytest.raises(QueueFullError):
            submit(batcher, 8)
        assert batcher.shedding.retry_after_s
        while inline.pending:
            inline.pending.popleft()()
        for i in range(8):
            batcher.submit(request(i, lane=Lane.BULK)[0])
        assert not batcher.shedding.retry_after_s  # though interactive ones were refused lately
        while inline.pending:
            inline.pending.popleft()()
