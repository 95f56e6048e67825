"""Thousands of random schedules in simulated time: what must hold for every one of them."""

from collections import Counter
from dataclasses import replace

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
    patience_s=st.none() | st.floats(0, 0.3),
    lane=st.sampled_from(Lane),
    cancel_after_s=st.none() | st.none() | st.floats(0, 0.1),
)
schedules = st.lists(callers, max_size=60)


policies = st.builds(lambda runs: replace(POLICY, parallel_runs=runs), st.integers(1, 3))


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
    for _, rows, _ in simulation.batches:
        assert rows <= policy.most_rows


@settings(max_examples=500)
@given(schedules, policies)
def test_no_answer_is_late_on_a_device_that_keeps_its_pace(schedule: list[Caller], policy: BatchingPolicy) -> None:
    simulation = Simulation(policy, A, B)
    simulation.run(schedule)
    for caller in schedule:
        if isinstance(caller.outcomes[0], list) and caller.deadline is not None and len(caller.values) <= 8:
            assert caller.answered_at is not None
            assert caller.answered_at <= caller.deadline + 1e-3


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
