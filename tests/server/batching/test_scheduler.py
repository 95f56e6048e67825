"""What the scheduler decides of batches, one decision at a time: which rows, of which lane, in which order."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.batching.policy import Lane
from inferry_server.batching.request import InferenceRequest
from inferry_server.batching.scheduler import BatchScheduler
from inferry_server.errors import QueueFullError
from testkit.scheduling import POLICY, NoReply, admit, request, scheduler, take, whole
from testkit.simulation import known_device


def test_bulk_work_has_large_batches_only_while_no_interactive_requests_come() -> None:
    queue = scheduler(max_batch_size=8, small_batch_size=4)
    job, person = request(16, lane=Lane.BULK), request()
    admit(queue, job, now=10.0)
    assert take(queue, 10.0) == [(job, 0, 8)]
    admit(queue, person, now=11.0)
    assert take(queue, 11.0) == whole(person)
    assert take(queue, 11.9) == [(job, 8, 4)]
    assert take(queue, 12.1) == [(job, 12, 4)]
    people = [request(4) for _ in range(4)]
    admit(queue, *people, now=12.2)
    assert take(queue, 12.2) == whole(*people[:2])


def test_bulk_work_beside_interactive_requests_has_the_least_batches_that_keep_most_of_its_speed() -> None:
    queue = scheduler(max_batch_size=32, max_request_rows=256, max_queue_size=256, a=0.001, b=0.001)
    job, person = request(64, lane=Lane.BULK), request()
    admit(queue, job, now=10.0)
    assert take(queue, 10.0) == [(job, 0, 32)]
    admit(queue, person, now=11.0)
    assert take(queue, 11.0) == whole(person)
    assert take(queue, 11.1) == [(job, 32, 8)]  # 8 in 9 ms for 32 in 33 ms
    assert take(queue, 13.0) == [(job, 40, 24)]


def test_bulk_work_alone_has_batches_of_its_own_size_and_interactive_requests_never_do() -> None:
    queue = scheduler(max_batch_size=4, bulk_batch_size=16, a=0.001, b=0.001)
    job, people = request(24, lane=Lane.BULK), [request(4) for _ in range(2)]
    admit(queue, job, now=10.0)
    waiting = queue.next_batch(10.0)
    assert waiting is not None
    assert waiting.batch_s == pytest.approx(0.017)
    assert take(queue, 10.0) == [(job, 0, 16)]
    admit(queue, *people, now=11.0)
    assert take(queue, 11.0) == whole(people[0])
    assert take(queue, 11.0) == whole(people[1])
    assert take(queue, 11.1) == [(job, 16, 4)]
    assert take(queue, 12.1) == [(job, 20, 4)]


def test_requests_that_share_no_batch_are_not_cut_for_interactive_ones() -> None:
    queue = scheduler(max_batch_size=32, max_queue_size=256, a=0.001, b=0.001)
    queue.serve_alone()
    job = request(12, lane=Lane.BULK)
    admit(queue, request(), job, now=10.0)
    take(queue, 10.0)
    assert take(queue, 10.1) == whole(job)
    assert take(queue, 10.2) == []


def texts(*lengths: int) -> InferenceRequest:
    array = np.array(["x" * length for length in lengths], object).reshape(len(lengths), 1)
    return InferenceRequest({"x": array}, len(lengths), NoReply())


def test_texts_count_with_their_characters_and_their_times_are_learned_by_length() -> None:
    queue = scheduler(max_queue_bytes=1000)
    admit(queue, texts(100, 300), texts(0))
    with pytest.raises(QueueFullError, match="1224 bytes, the limit is 1000"):  # 8 for each of the four, too
        admit(queue, texts(800 - 8))
    assert texts(100).shape_key == texts(110).shape_key == texts(90, 120).shape_key
    assert texts(100).shape_key != texts(1000).shape_key
    assert texts(100).item_shapes == texts(1000).item_shapes


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 512), st.floats(0.1, 0.95))
def test_the_batch_for_a_share_keeps_that_share(a: float, b: float, largest: int, share: float) -> None:
    latency = known_device(replace(POLICY, max_batch_size=largest), a, b)
    rows = latency.rows_for_share(share, of=largest)
    assert 1 <= rows <= largest
    assert rows == largest or rows & (rows - 1) == 0
    assert rows * latency.batch_s(largest) >= 0.999 * share * largest * latency.batch_s(rows)


def wait_s(queue: BatchScheduler) -> float | None:
    """How long an idle device waits at time 0."""
    waiting = queue.next_batch(0.0)
    return None if waiting is None else waiting.wait_s


def test_an_idle_device_waits_for_no_more_than_a_small_batch() -> None:
    queue = scheduler(max_batch_size=8, small_batch_size=4, max_queue_delay_s=1.0)
    admit(queue, request(3))
    assert wait_s(queue) == 1.0
    admit(queue, request())
    assert wait_s(queue) == 0.0


@pytest.mark.parametrize(("room", "full_at"), [(16, 8), (6, 6)])
def test_what_waits_is_full_when_a_batch_is_or_nothing_more_has_room(room: int, full_at: int) -> None:
    queue = scheduler(max_batch_size=8, max_queue_size=room)
    for rows in range(1, full_at + 1):
        assert not queue.is_full()
        admit(queue, request())
        assert queue.rows == rows
    assert queue.is_full()


def test_a_batch_takes_from_the_front_what_fits_whole() -> None:
    queue = scheduler()
    requests = [request(2), request(1), request(2), request(1)]
    admit(queue, *requests)
    assert take(queue) == whole(*requests[:2])
    assert take(queue) == whole(*requests[2:])
    assert take(queue) == []


def test_a_request_larger_than_a_batch_is_cut_and_its_end_shares_a_batch() -> None:
    queue = scheduler()
    large, small = request(10), request(2)
    admit(queue, large, small)
    assert take(queue) == [(large, 0, 4)]
    assert take(queue) == [(large, 4, 4)]
    assert take(queue) == [(large, 8, 2), (small, 0, 2)]
    assert queue.rows == 0


def test_a_large_request_fills_what_a_small_one_leaves() -> None:
    queue = scheduler()
    small, large = request(3), request(6)
    admit(queue, small, large)
    assert take(queue) == [(small, 0, 3), (large, 0, 1)]
    assert take(queue) == [(large, 1, 4)]
    assert take(queue) == [(large, 5, 1)]


def test_requests_of_different_item_shapes_never_share_a_batch() -> None:
    queue = scheduler()
    requests = [request(width=1), request(width=2), request(width=2)]
    admit(queue, *requests)
    assert take(queue) == whole(requests[0])
    assert take(queue) == whole(*requests[1:])


def test_the_earliest_deadline_goes_first_and_equal_ones_in_order_of_arrival() -> None:
    queue = scheduler(max_batch_size=1)
    late, early, early_too, patient = request(deadline=0.9), request(deadline=0.5), request(deadline=0.5), request()
    admit(queue, patient, late, early, early_too)  # without deadline: as if it had a second
    assert [take(queue)[0][0] for _ in range(4)] == [early, early_too, late, patient]


def test_who_has_more_time_than_the_patience_is_due_as_one_without_a_deadline() -> None:
    queue = scheduler(max_batch_size=1)
    long, none, longer, soon = request(deadline=9.0), request(), request(deadline=20.0), request(deadline=1.5)
    admit(queue, long, now=0.0)
    admit(queue, none, now=0.1)
    admit(queue, longer, now=0.2)
    admit(queue, soon, now=1.3)
    assert [take(queue, 1.3)[0][0] for _ in range(4)] == [long, none, longer, soon]


def test_a_full_lane_refuses_the_newest_request_and_says_the_limit() -> None:
    queue = scheduler(a=0.1, max_queue_size=5)
    admit(queue, request(4))
    with pytest.raises(QueueFullError, match="6 rows, the limit is 5") as caught:
        admit(queue, request(2))
    assert caught.value.retry_after_s == pytest.approx(0.1, rel=0.01)
    admit(queue, request(1), request(5, lane=Lane.BULK))  # the other lane has room of its own


def test_bytes_are_bounded_too() -> None:
    queue = scheduler(max_queue_bytes=10)
    admit(queue, request(2, width=4))
    with pytest.raises(QueueFullError, match="12 bytes, the limit is 10"):
        admit(queue, request(1, width=4))
    take(queue)
    admit(queue, request(1, width=4))


def test_people_go_before_jobs_and_jobs_get_their_share() -> None:
    queue = scheduler(max_batch_size=1, interactive_batches_per_bulk=2)
    admit(queue, *[request(lane=Lane.BULK) for _ in range(3)], *[request() for _ in range(5)])
    lanes = [take(queue)[0][0].lane for _ in range(8)]
    people, jobs = Lane.INTERACTIVE, Lane.BULK
    assert lanes == [people, people, jobs, people, people, jobs, people, jobs]


def test_lanes_never_share_a_batch() -> None:
    queue = scheduler()
    person, job = request(), request(lane=Lane.BULK)
    admit(queue, job, person)
    assert take(queue) == whole(person)
    assert take(queue) == whole(job)


def test_a_request_that_finds_its_lane_empty_has_room_whatever_its_size() -> None:
    queue = scheduler(max_queue_size=2)
    admit(queue, large := request(10))
    with pytest.raises(QueueFullError):
        admit(queue, request(1))
    admit(queue, request(10, lane=Lane.BULK))  # the other lane has room of its own
    assert take(queue) == [(large, 0, 4)]


def test_a_queue_that_is_shorter_than_a_batch_waits_no_longer_than_until_it_is_full() -> None:
    queue = scheduler(max_queue_size=2, max_queue_delay_s=1.0)
    admit(queue, request(1))
    assert wait_s(queue) == 1.0
    admit(queue, request(1))
    assert wait_s(queue) == 0.0


def test_a_settled_request_makes_room_and_is_never_taken() -> None:
    queue = scheduler(max_queue_size=4)
    first, second = request(3), request(1)
    admit(queue, first, second)
    assert queue.settle(first)
    assert not queue.settle(first)
    admit(queue, request(3))
    assert take(queue)[0][0] is second


def test_a_half_computed_request_that_is_cancelled_frees_the_rest() -> None:
    queue = scheduler()
    large = request(10)
    admit(queue, large)
    take(queue)
    assert queue.rows == 6
    queue.settle(large)
    assert queue.rows == 0
    assert take(queue) == []


def test_many_cancelled_requests_leave_nothing_behind() -> None:
    queue = scheduler(max_queue_size=10_000, max_queue_bytes=10_000)
    keeper = request(deadline=1e9)
    admit(queue, keeper)
    for _ in range(1000):
        gone = request()
        admit(queue, gone)
        queue.settle(gone)
    tensor_weakly = weakref.ref(gone.inputs["x"])
    del gone
    assert len(queue._interactive._heap) < 100
    assert tensor_weakly() is None
    assert take(queue) == whole(keeper)


@pytest.mark.parametrize(
    ("rows", "age_s", "wait_s"), [(1, 0.0, 0.5), (1, 0.2, 0.3), (1, 0.6, 0.0), (4, 0.0, 0.0), (9, 0.0, 0.0)]
)
def test_an_idle_device_waits_only_for_a_fuller_batch_and_never_past_the_delay(
    rows: int, age_s: float, wait_s: float
) -> None:
    patient = replace(POLICY, max_queue_delay_s=0.5)
    assert patient.wait_s(queued_rows=rows, oldest_age_s=age_s) == pytest.approx(wait_s)


def test_by_default_a_lone_request_is_due_at_once() -> None:
    queue = scheduler()
    assert wait_s(queue) is None
    admit(queue, request())
    assert wait_s(queue) == 0


def test_the_oldest_request_tells_its_age_wherever_its_turn_is() -> None:
    queue = scheduler()
    assert queue.queued(Lane.INTERACTIVE, 5.0).oldest_age_s == 0.0
    oldest, urgent = request(deadline=90.0), request(deadline=50.0)
    admit(queue, oldest, now=1.0)
    admit(queue, urgent, now=2.0)
    assert queue.queued(Lane.INTERACTIVE, 5.0).oldest_age_s == 4.0
    assert queue.queued(Lane.BULK, 5.0).oldest_age_s == 0.0
    queue.settle(oldest)
    assert queue.queued(Lane.INTERACTIVE, 5.0).oldest_age_s == 3.0
