"""Thousands of random schedules in simulated time: what must hold for every one of them."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.errors import DeadlineExceededError, OverloadedError, QueueFullError
from testkit.simulation import POISON, Caller, Simulation

A, B = 0.010, 0.001
POLICY = BatchingPolicy(max_batch_size=8, max_request_rows=32, max_queue_size=64, max_queue_bytes=1 << 20)
FULL_BATCH_S = A + 8 * B

callers = st.builds(
    Caller,
    at=st.floats(0, 0.5),
    values=st.lists(st.floats(0, 100) | st.just(POISON), min_size=1, max_size=3).map(tuple)
    | st.integers(9, 32).map(lambda rows: tuple(map(float, range(rows)))),
    patience_s=st.none() | st.floats(0, 0.3) | st.floats(0.3, 3.0),
    lane=st.sampled_from(Lane),
    cancel_after_s=st.none() | st.none() | st.floats(0, 0.1),
)
schedules = st.lists(callers, max_size=60)


policies = st.builds(
    lambda small, bulk, patience_s: replace(
        POLICY, small_batch_size=small, bulk_batch_size=bulk, patience_s=patience_s
    ),
    st.sampled_from([None, 2, 4]),
    st.sampled_from([None, None, 16]),
    st.sampled_from([0.0, 0.02, 0.1, 1.0]),
)


@settings(max_examples=1500)
@given(schedules, policies)
def test_every_request_has_one_outcome_and_the_right_one(schedule: list[Caller], policy: BatchingPolicy) -> None:
    simulation = Simulation(policy, A, B)
    simulation.run(schedule)
    for caller in schedule:
        (outcome,) = caller.outcomes
        if isinstance(outcome, list):
            assert outcome == [2 * value for value in caller.values]  # whatever batch it rode in
            assert caller.deadline is None or caller.answered_at is not None
        elif isinstance(outcome, ValueError):
            assert POISON in caller.values  # only the guilty one fails
        elif outcome == "cancelled":
            assert caller.cancel_after_s is not None
        elif isinstance(outcome, DeadlineExceededError | OverloadedError):
            assert caller.patience_s is not None
        else:
            assert isinstance(outcome, QueueFullError)
    for _, rows, lane in simulation.batches:
        assert rows <= policy.max_batch_size or (lane is Lane.BULK and rows <= (policy.bulk_batch_size or 0))


@settings(max_examples=500)
@given(schedules, policies)
def test_no_reply_is_late_on_a_device_that_keeps_its_pace(schedule: list[Caller], policy: BatchingPolicy) -> None:
    simulation = Simulation(policy, A, B)
    simulation.run(schedule)
    for caller in schedule:
        if caller.request is not None and caller.request.is_probe:
            continue  # which is there to see whether it would be late
        if isinstance(caller.outcomes[0], list) and caller.deadline is not None and len(caller.values) <= 8:
            assert caller.answered_at is not None
            assert caller.answered_at <= caller.deadline + 1e-3


@settings(max_examples=500)
@given(schedules, policies)
def test_nobody_is_overtaken_for_longer_than_the_patience(schedule: list[Caller], policy: BatchingPolicy) -> None:
    """From then on, and until its own first rows are computed, batches of its lane hold earlier arrivals alone."""
    simulation = Simulation(policy, A, B)
    simulation.run(schedule)
    taken_at = {id(caller): at for at, members in reversed(simulation.members) for caller in members}
    for caller in schedule:
        ends = min(taken_at.get(id(caller), math.inf), caller.left_at)
        for at, members in simulation.members:
            if members[0].lane is caller.lane and caller.at + policy.patience_s < at < ends:
                assert all(member.at <= caller.at for member in members)


# A caller of whom nobody is refused: all deadlines are long enough for everything that can wait.
unhurried = st.lists(
    st.builds(
        Caller,
        at=st.floats(0, 0.5),
        values=st.integers(1, 8).map(lambda rows: (1.0,) * rows),
        patience_s=st.none() | st.floats(1.0, 20.0),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(unhurried, st.sampled_from([0.02, 0.1, 1.0]))
def test_nobody_waits_longer_than_first_come_first_served_and_the_patience(
    schedule: list[Caller], patience_s: float
) -> None:
    """Beside the patience, a batch that began before, and one for the rows that were put together in another way."""
    room = replace(POLICY, max_queue_size=1000, patience_s=patience_s)
    in_order = [replace(caller, outcomes=[], batches=[]) for caller in schedule]
    Simulation(replace(room, patience_s=0.0), A, B).run(in_order)  # everybody is due at once: in order of arrival
    Simulation(room, A, B).run(schedule)
    for caller, same in zip(schedule, in_order, strict=True):
        assert caller.answered_at is not None
        assert same.answered_at is not None
        assert caller.answered_at <= same.answered_at + patience_s + 2 * FULL_BATCH_S


def test_a_caller_with_seconds_to_wait_has_its_reply_as_soon_as_one_without_a_deadline() -> None:
    capacity = 8 / FULL_BATCH_S
    crowd = [Caller(at=i / (0.98 * capacity), values=(1.0,)) for i in range(int(10 * capacity))]
    waits = []
    for patience_s in (None, 3.0, 8.0):
        caller = Caller(at=1.0, values=(1.0,), patience_s=patience_s)
        Simulation(POLICY, A, B).run([*(replace(one, outcomes=[], batches=[]) for one in crowd), caller])
        assert caller.answered_at is not None
        waits.append(caller.answered_at - caller.at)
    assert waits[1] == waits[2] == pytest.approx(waits[0])


@settings(max_examples=300)
@given(schedules, st.integers(0, 59))
def test_a_neighbour_that_leaves_takes_nobody_along(schedule: list[Caller], victim: int) -> None:
    for caller in schedule:
        caller.patience_s = None
        caller.cancel_after_s = None
    if victim < len(schedule):
        schedule[victim].cancel_after_s = 0.0
    Simulation(POLICY, A, B).run(schedule)
    for position, caller in enumerate(schedule):
        if position != victim and not isinstance(caller.outcomes[0], QueueFullError):
            poisoned = POISON in caller.values
            assert isinstance(caller.outcomes[0], ValueError if poisoned else list)


def test_under_saturating_bulk_work_a_person_waits_one_batch_at_most_and_bulk_advances() -> None:
    jobs = [Caller(at=i * 0.005, values=(1.0,) * 8, lane=Lane.BULK) for i in range(400)]
    people = [Caller(at=0.1003 + i * 0.037, values=(1.0,)) for i in range(40)]
    simulation = Simulation(POLICY, A, B)
    simulation.run(jobs + people)
    alone_s = A + B
    for person in people:
        assert person.answered_at is not None
        assert person.answered_at - person.at <= alone_s + FULL_BATCH_S + 1e-9
    assert sum(isinstance(job.outcomes[0], list) for job in jobs) > 80


def test_under_saturating_people_bulk_work_still_gets_its_share() -> None:
    people = [Caller(at=i * 0.002, values=(1.0,) * 8) for i in range(1000)]
    jobs = [Caller(at=i * 0.01, values=(1.0,) * 8, lane=Lane.BULK) for i in range(200)]
    simulation = Simulation(POLICY, A, B)
    simulation.run(people + jobs)
    lanes = Counter(lane for at, _, lane in simulation.batches if at < 2)
    share = lanes[Lane.BULK] / lanes.total()
    assert 0.15 < share < 0.25  # one of five batches


def test_at_three_times_capacity_with_an_objective_the_device_does_useful_work_only() -> None:
    capacity = 8 / FULL_BATCH_S
    offered = [Caller(at=i / (3 * capacity), values=(1.0,), patience_s=0.1) for i in range(int(3 * capacity * 10))]
    simulation = Simulation(POLICY, A, B)
    simulation.run(offered)
    useful = [c for c in offered if isinstance(c.outcomes[0], list)]
    assert len(useful) >= 0.98 * capacity * 10
    assert all(c.answered_at is not None and c.answered_at <= c.at + 0.1 + 1e-9 for c in useful)
    computed = sum(rows for _, rows, _ in simulation.batches)
    assert computed == len(useful)  # nothing expired was computed


def test_requests_without_a_deadline_are_not_overtaken_for_ever() -> None:
    rushed = [Caller(at=i * 0.0015, values=(1.0,), patience_s=0.1) for i in range(4000)]
    patient = Caller(at=1.0, values=(1.0,))
    Simulation(POLICY, A, B).run([*rushed, patient])
    assert patient.answered_at is not None
    assert patient.answered_at - patient.at < 1.5
