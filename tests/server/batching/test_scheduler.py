"""What the scheduler decides, one decision at a time; the clock is passed in."""

import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.request import InferenceRequest, Timing
from inferry_server.batching.scheduler import BatchScheduler, TakenBatch
from inferry_server.errors import DeadlineExceededError, OverloadedError, QueueFullError
from testkit.simulation import known_device

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=16, max_queue_size=16, max_queue_bytes=1000)


class NoReply:
    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        raise AssertionError

    def fail(self, error: Exception) -> None:
        raise AssertionError


def request(
    rows: int = 1, *, deadline: float | None = None, width: int = 1, lane: Lane = Lane.INTERACTIVE
) -> InferenceRequest:
    return InferenceRequest({"x": np.zeros((rows, width), np.uint8)}, rows, NoReply(), deadline=deadline, lane=lane)


def scheduler(*, a: float = 0.0, b: float = 0.0, instances: int = 1, **limits: float) -> BatchScheduler:
    policy = replace(POLICY, **limits)  # type: ignore[arg-type]
    latency = known_device(policy, a, b) if a or b else LatencyModel(policy.max_batch_size)
    return BatchScheduler(policy, latency, instances=instances)


def admit(queue: BatchScheduler, *requests: InferenceRequest, now: float = 0.0) -> None:
    for waiting in requests:
        queue.admit(waiting, now)


def take(queue: BatchScheduler, now: float = 0.0) -> list[tuple[InferenceRequest, int, int]]:
    """The slices of the next batch; it is done at once."""
    batch = queue.take_batch(now)
    if batch.slices:
        queue.finished(batch, None)
    return [(part.request, part.start, part.rows) for part in batch.slices]


def whole(*requests: InferenceRequest) -> list[tuple[InferenceRequest, int, int]]:
    return [(r, 0, r.rows) for r in requests]


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


def test_the_tightest_deadline_of_a_batch_bounds_it_though_it_is_not_the_first() -> None:
    queue = scheduler(a=0.1, b=0.1)
    waited, tight, others = request(), request(deadline=2.35), [request(), request()]
    admit(queue, waited, now=0.0)
    admit(queue, tight, *others, now=2.0)
    assert take(queue, 2.0) == whole(waited, tight)  # a third row would take until 2.4
    assert take(queue, 2.3) == whole(*others)


def test_who_cannot_ride_with_those_before_nor_wait_for_them_is_refused_at_once() -> None:
    queue = scheduler(a=0.1, b=0.1)
    waited, tight, other = request(), request(deadline=2.35), request()
    admit(queue, waited, now=0.0)
    admit(queue, tight, other, now=2.0)
    taken = queue.take_batch(2.1)
    assert [refused for refused, _ in taken.refused] == [tight]
    assert [part.request for part in taken.slices] == [waited, other]
    beside = scheduler(a=0.1, b=0.1, instances=2)
    waited, tight = request(), request(deadline=2.35)
    admit(beside, waited, now=0.0)
    admit(beside, tight, now=2.0)
    assert [part.request for part in beside.take_batch(2.1).slices] == [waited]
    assert [part.request for part in beside.take_batch(2.1).slices] == [tight]


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


def test_a_deadline_that_has_passed_is_refused_at_the_door() -> None:
    queue = scheduler()
    for deadline in (9.5, 10):
        with pytest.raises(DeadlineExceededError):
            admit(queue, request(deadline=deadline), now=10)


def test_a_deadline_that_even_an_idle_server_cannot_meet_is_refused_at_the_door() -> None:
    queue = scheduler(a=0.1, b=0.1)
    with pytest.raises(DeadlineExceededError, match=r"takes about 500\.0 ms and would end 100\.0 ms late"):
        admit(queue, request(4, deadline=0.4))
    admit(queue, request(4, deadline=0.51))


def test_a_deadline_that_only_the_queue_is_in_the_way_of_is_told_apart_with_a_hint() -> None:
    queue = scheduler(a=0.1, b=0.1)
    admit(queue, request(4, deadline=1.3), request(4, deadline=1.3))
    with pytest.raises(OverloadedError, match=r"100\.0 ms after the deadline") as caught:
        admit(queue, request(4, deadline=1.4))
    assert caught.value.retry_after_s == pytest.approx(0.1, rel=0.01)


def test_people_who_wait_are_in_the_way_of_a_job_and_jobs_in_nobodys() -> None:
    queue = scheduler(a=0.1, b=0.1)
    admit(queue, request(4, deadline=9), request(4, deadline=9))
    with pytest.raises(OverloadedError, match=r"500\.0 ms after the deadline"):
        admit(queue, request(4, deadline=1.0, lane=Lane.BULK))
    other = scheduler(a=0.1, b=0.1)
    jobs = [request(4, deadline=9, lane=Lane.BULK) for _ in range(2)]
    admit(other, *jobs, request(4, deadline=0.6))
    assert take(other)[0][0].lane is Lane.INTERACTIVE


def test_what_is_due_later_is_not_in_the_way() -> None:
    queue = scheduler(a=0.1, b=0.1)
    admit(queue, request(4, deadline=9), request(4, deadline=9), request(4, deadline=0.6))
    assert take(queue)[0][0].deadline == 0.6


def test_the_batch_that_runs_is_in_the_way_until_it_should_be_done() -> None:
    queue = scheduler(a=0.1, b=0.1)
    admit(queue, request(4))
    queue.take_batch(0)
    with pytest.raises(OverloadedError):
        admit(queue, request(1, deadline=0.6), now=0)
    admit(queue, request(1, deadline=0.75), now=0)
    other = scheduler(a=0.1, b=0.1, instances=2)
    admit(other, request(4))
    other.take_batch(0)
    admit(other, request(1, deadline=0.6), now=0)


def test_turns_of_busy_neighbours_are_in_the_way_too_and_soon_forgotten() -> None:
    queue = scheduler(a=0.1)
    now = 0.0
    for _ in range(50):  # every batch had to wait for half a second
        now += 0.5
        admit(queue, request(), now=now)
        queue.finished(queue.take_batch(now, waited_s=0.5), 0.1)
    with pytest.raises(OverloadedError):
        admit(queue, request(deadline=now + 0.4), now=now)
    admit(queue, request(deadline=now + 0.65), now=now)
    now += 10  # and whoever was refused does not stay so
    admit(queue, request(deadline=now + 0.4), now=now)


def test_what_expired_while_waiting_is_taken_out_and_not_computed() -> None:
    queue = scheduler()
    late, patient = request(deadline=1), request(deadline=3)
    admit(queue, late, patient)
    taken: TakenBatch = queue.take_batch(1)
    assert [r for r, _ in taken.refused] == [late]
    assert [part.request for part in taken.slices] == [patient]
    assert late.settled
    assert queue.rows == 0


def test_a_batch_is_not_grown_past_what_its_earliest_deadline_allows() -> None:
    queue = scheduler(a=0.1, b=0.1)
    urgent, others = request(deadline=0.35), [request(), request(), request()]
    admit(queue, urgent, *others)
    assert take(queue) == whole(urgent, others[0])  # a third row would take until 0.4
    assert take(queue) == whole(*others[1:])


def test_one_is_given_up_where_a_batch_cut_for_it_would_make_the_next_ones_late() -> None:
    queue = scheduler(a=0.1, b=0.1, max_batch_size=8)
    alike = [request(deadline=1.05) for _ in range(8)]
    admit(queue, *alike)
    late = queue.take_batch(0.2)  # eight rows take until 1.1, seven until 1.0
    assert [refused for refused, _ in late.refused] == alike[:1]
    assert [part.request for part in late.slices] == alike[1:]


def test_a_short_deadline_is_met_among_long_ones() -> None:
    queue = scheduler(a=0.1, b=0.1, max_batch_size=8)
    urgent, others = request(deadline=0.55), [request(deadline=2.0) for _ in range(7)]
    admit(queue, urgent, *others)
    assert take(queue, 0.2) == whole(urgent, others[0])
    assert take(queue, 0.5) == whole(*others[1:])


def test_short_deadlines_ride_together_among_requests_without() -> None:
    queue = scheduler(a=0.001, b=0.001, max_batch_size=8)
    tight, patient = [request(deadline=0.0065) for _ in range(4)], [request() for _ in range(7)]
    admit(queue, *tight, *patient)
    taken = queue.take_batch(0.0)  # five rows take until 0.006
    assert not taken.refused
    assert [part.request for part in taken.slices] == [*tight, patient[0]]


def test_nobody_is_given_up_for_a_batch_that_cannot_form() -> None:
    queue = scheduler(a=1.0, b=1.0, max_batch_size=8)
    tight, others = request(deadline=3.0), [request(deadline=10.5, width=4) for _ in range(7)]
    admit(queue, tight, *others)
    assert take(queue) == whole(tight)


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
    gone_weakly = weakref.ref(gone)
    del gone
    assert len(queue._interactive._heap) < 100
    assert gone_weakly() is None  # nor are their tensors kept
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
    assert queue.oldest_age_s(Lane.INTERACTIVE, 5.0) == 0.0
    oldest, urgent = request(deadline=90.0), request(deadline=50.0)
    admit(queue, oldest, now=1.0)
    admit(queue, urgent, now=2.0)
    assert queue.oldest_age_s(Lane.INTERACTIVE, 5.0) == 4.0
    assert queue.oldest_age_s(Lane.BULK, 5.0) == 0.0
    queue.settle(oldest)
    assert queue.oldest_age_s(Lane.INTERACTIVE, 5.0) == 3.0
