"""Requests are shed while more come than can be computed, whichever thread computes them."""

import dataclasses
import threading

import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.errors import DeadlineExceededError, QueueFullError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.core_turns import ComputeGate
from inferry_server.executing.inline import InlineWork
from testkit.batchers import Observer, request, values
from testkit.inline_batches import POLICY, Threads, reading, submit
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


def test_requests_are_shed_too_while_a_full_batch_waits_for_the_models_own_thread() -> None:
    begun, may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def run(inputs: Arrays) -> Arrays:
        begun.release()
        assert may_go_on.acquire(timeout=SOON_S)
        return {"y": 2 * inputs["x"]}

    policy, inline = dataclasses.replace(POLICY, max_queue_size=4, max_request_rows=4), InlineWork()
    batcher = DynamicBatcher("test", [run], policy, observer=Observer(), inline=inline, clock=lambda: 100.0)
    batcher.start()
    replies = submit(batcher, 0)
    assert begun.acquire(timeout=SOON_S)
    replies += submit(batcher, 1, 2, 3, 4)
    assert not batcher.shedding.retry_after_s  # nothing was refused
    with pytest.raises(QueueFullError):
        submit(batcher, 5)
    assert batcher.shedding.retry_after_s
    assert inline.shedding is batcher.shedding  # calls are shed unread as well
    may_go_on.release()
    assert begun.acquire(timeout=SOON_S)
    assert not batcher.shedding.retry_after_s  # the full batch was taken: there is room
    may_go_on.release()
    assert [values(reply.outcome()) for reply in replies] == [[2.0 * i] for i in range(5)]
    assert batcher.close(SOON_S)
