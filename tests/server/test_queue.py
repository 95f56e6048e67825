"""The queue and its policy, driven by a clock that the tests pass in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.queue import RequestQueue
from inferry_server.batching.request import Arrays, InferenceRequest, Timing
from inferry_server.errors import DeadlineExceededError, QueueFullError


class NoReply:
    def complete(self, outputs: Arrays, timing: Timing) -> None:
        raise AssertionError

    def fail(self, error: Exception) -> None:
        raise AssertionError


def request(rows: int = 1, *, deadline: float | None = None, width: int = 1) -> InferenceRequest:
    return InferenceRequest({"x": np.zeros((rows, width), np.uint8)}, rows, NoReply(), deadline=deadline)


def policy(**limits: int) -> BatchingPolicy:
    return BatchingPolicy(**{"max_batch_size": 4, "max_queue_size": 16, "max_queue_bytes": 1000} | limits)


def test_a_batch_takes_from_the_front_what_fits() -> None:
    queue = RequestQueue(policy())
    requests = [request(2), request(1), request(2), request(1)]
    for waiting in requests:
        queue.push(waiting, now=0, retry_after_s=0)
    assert queue.take_batch(0).requests == tuple(requests[:2])
    assert queue.take_batch(0).requests == tuple(requests[2:])
    assert queue.take_batch(0).requests == ()


def test_requests_of_different_item_shapes_never_share_a_batch() -> None:
    queue = RequestQueue(policy())
    requests = [request(width=1), request(width=2), request(width=2)]
    for waiting in requests:
        queue.push(waiting, now=0, retry_after_s=0)
    assert queue.take_batch(0).requests == (requests[0],)
    assert queue.take_batch(0).requests == (requests[1], requests[2])


def test_a_full_queue_refuses_the_newest_request_and_says_the_limit() -> None:
    queue = RequestQueue(policy(max_queue_size=5))
    queue.push(request(4), now=0, retry_after_s=0)
    with pytest.raises(QueueFullError, match="6 rows, the limit is 5") as caught:
        queue.push(request(2), now=0, retry_after_s=0.25)
    assert caught.value.retry_after_s == 0.25
    queue.push(request(1), now=0, retry_after_s=0)


def test_bytes_are_bounded_too() -> None:
    queue = RequestQueue(policy(max_queue_bytes=10))
    queue.push(request(2, width=4), now=0, retry_after_s=0)
    with pytest.raises(QueueFullError, match="12 bytes, the limit is 10"):
        queue.push(request(1, width=4), now=0, retry_after_s=0)


def test_a_deadline_that_has_passed_is_refused_at_the_door_and_says_how_late() -> None:
    queue = RequestQueue(policy())
    with pytest.raises(DeadlineExceededError, match=r"passed 500\.0 ms before"):
        queue.push(request(deadline=9.5), now=10, retry_after_s=0)


def test_a_request_that_expired_while_waiting_is_taken_out_and_not_computed() -> None:
    queue = RequestQueue(policy())
    late, early = request(deadline=1), request(deadline=3)
    queue.push(late, now=0, retry_after_s=0)
    queue.push(early, now=0, retry_after_s=0)
    taken = queue.take_batch(1)
    assert taken.expired == (late,)
    assert taken.requests == (early,)


def test_a_removed_request_makes_room_and_is_never_taken() -> None:
    queue = RequestQueue(policy(max_queue_size=4))
    first, second = request(3), request(1)
    queue.push(first, now=0, retry_after_s=0)
    queue.push(second, now=0, retry_after_s=0)
    assert queue.remove(first)
    assert not queue.remove(first)
    queue.push(request(3), now=0, retry_after_s=0)
    assert queue.take_batch(0).requests[0] is second


def test_the_age_is_that_of_the_first_request_still_waiting() -> None:
    queue = RequestQueue(policy())
    assert queue.oldest_age_s(5) == 0
    first, second = request(), request()
    queue.push(first, now=1, retry_after_s=0)
    queue.push(second, now=3, retry_after_s=0)
    assert queue.oldest_age_s(5) == 4
    queue.remove(first)
    assert queue.oldest_age_s(5) == 2


@pytest.mark.parametrize(
    ("rows", "age_s", "wait_s"), [(1, 0.0, 0.5), (1, 0.2, 0.3), (1, 0.6, 0.0), (4, 0.0, 0.0), (9, 0.0, 0.0)]
)
def test_an_idle_device_waits_only_for_a_fuller_batch_and_never_past_the_delay(
    rows: int, age_s: float, wait_s: float
) -> None:
    patient = BatchingPolicy(max_batch_size=4, max_queue_size=16, max_queue_bytes=1000, max_queue_delay_s=0.5)
    assert patient.wait_s(queued_rows=rows, oldest_age_s=age_s) == pytest.approx(wait_s)


def test_by_default_a_lone_request_is_due_at_once() -> None:
    assert policy().wait_s(queued_rows=1, oldest_age_s=0) == 0


@given(st.data())
def test_whatever_happens_every_admitted_request_leaves_once_and_limits_hold(data: st.DataObject) -> None:
    limits = policy(max_queue_size=12, max_queue_bytes=40)
    queue, now = RequestQueue(limits), 0.0
    admitted: list[InferenceRequest] = []
    left: list[InferenceRequest] = []
    for action in data.draw(st.lists(st.sampled_from(["push", "take", "remove", "wait"]), max_size=60)):
        if action == "push":
            patience = data.draw(st.none() | st.integers(0, 20))
            deadline = None if patience is None else now + patience
            new = request(data.draw(st.integers(1, 4)), deadline=deadline, width=data.draw(st.integers(1, 3)))
            try:
                queue.push(new, now=now, retry_after_s=0)
                admitted.append(new)
            except (QueueFullError, DeadlineExceededError):
                assert not new.settled
        elif action == "take":
            taken = queue.take_batch(now)
            assert taken.rows <= limits.max_batch_size
            assert len({r.item_shapes for r in taken.requests}) <= 1
            assert all(r.lateness_s(now) is None for r in taken.requests)
            assert all(r.lateness_s(now) is not None for r in taken.expired)
            left += taken.requests + taken.expired
        elif action == "remove" and admitted:
            victim = data.draw(st.sampled_from(admitted))
            if queue.remove(victim):
                left.append(victim)
        elif action == "wait":
            now += data.draw(st.integers(0, 10))
        waiting = [r for r in admitted if r not in left]
        assert queue.rows == sum(r.rows for r in waiting) <= limits.max_queue_size
        assert queue.nbytes == sum(r.nbytes for r in waiting) <= limits.max_queue_bytes
    left += queue.take_all()
    assert sorted(map(id, left)) == sorted(map(id, admitted))
    assert queue.rows == queue.nbytes == 0
