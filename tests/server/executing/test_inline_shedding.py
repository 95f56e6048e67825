"""Requests are shed while more come than can be computed inline."""

import dataclasses

import pytest

from inferry_server.errors import DeadlineExceededError, QueueFullError
from inferry_server.executing.core_turns import ComputeGate
from testkit.batchers import request, values
from testkit.inline_batches import POLICY, Threads, reading, submit


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
