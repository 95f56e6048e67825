"""What the scheduler decides by deadlines: which requests it refuses, and how large a batch may grow for them."""

import pytest

from inferry_server.batching.batches import TakenBatch
from inferry_server.batching.policy import Lane
from inferry_server.errors import DeadlineExceededError, OverloadedError
from testkit.scheduling import admit, request, scheduler, take, whole


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
