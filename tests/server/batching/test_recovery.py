"""A device that was slow is fast again: what it can do is asked of it within a second, whatever was learned."""

from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inferry_server.batching.coalesced import CoalescedRequest, Member, Members
from inferry_server.batching.latency import _MOST_KINDS, _MOST_SHAPES, LatencyModel, PredictionDoubt, ShapeLatencies
from inferry_server.batching.policy import INTERACTIVE, BatchingPolicy
from inferry_server.batching.request import InferenceRequest, form_of
from inferry_server.batching.scheduler import BatchScheduler
from inferry_server.errors import DeadlineExceededError, OverloadedError, ServingError
from testkit.batchers import Reply
from testkit.simulation import Caller, Simulation, known_device

A, B = 0.010, 0.001
POLICY = BatchingPolicy(max_batch_size=8, max_request_rows=32, max_queue_size=64, max_queue_bytes=1 << 20)
PERIOD_S, RECOVERY_S = 0.1, 1.0


def alone_s(rows: int) -> float:
    """What an idle device takes for a request, in as many batches as it is cut into."""
    full, rest = divmod(rows, 8)
    return full * (A + 8 * B) + (A + rest * B if rest else 0.0)


# What a device was before: requests, how many times slower it was for each, and how long its turn came late.
histories = st.lists(
    st.tuples(
        st.integers(1, 32),
        st.none() | st.floats(0.001, 60.0),
        st.sampled_from([1.0, 1.5, 2.0, 10.0, 1000.0]) | st.floats(0.01, 100.0),
        st.sampled_from([0.0, 0.0, 0.0, 0.5, 30.0]),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(histories, st.lists(st.integers(1, 32), min_size=1, max_size=4), st.floats(1.01, 3.0), st.booleans())
@example([(1, None, 10.0, 0.0)] * 60, [1], 1.05, True)
@example([(1, None, 1.5, 0.0)] * 60, [1, 32], 1.01, True)
@example([(8, None, 1000.0, 0.0)] * 3, [1], 1.05, False)
@example([(1, None, 1.0, 30.0)] * 60, [1], 1.05, True)
@example([(1, None, 0.0625, 0.0)], [2, 8], 1.0625, False)
@example([(1, None, 1.0, 0.0), (8, None, 0.0625, 0.0)], [1, 2], 1.01, False)
@example([(1, None, 1.0, 0.0), (8, None, 0.0625, 0.0)], [2, 17], 1.01, False)
@example([(1, None, 0.0625, 0.0)], [2, 15], 1.03125, False)
@example([(4, None, 2.0, 0.0), (7, None, 1.5, 0.0)], [1, 4, 5], 1.01, False)
def test_a_second_after_any_history_what_an_idle_device_can_meet_is_computed_in_time(
    history: list[tuple[int, float | None, float, float]], rows: list[int], room: float, warmed: bool
) -> None:
    past, now, slow = [], 0.0, []
    for size, patience_s, times, waited_s in history:
        past.append(Caller(at=now, values=(1.0,) * size, patience_s=patience_s))
        slow.append((now, times, waited_s))
        now += times * alone_s(size) + 0.01
    fast_at = now

    def slowness(at: float) -> tuple[float, float]:
        if at >= fast_at or not slow:
            return 1.0, 0.0
        return next((times, waited_s) for began, times, waited_s in reversed(slow) if began <= at)

    present = []
    for i in range(30):
        size = rows[i % len(rows)]
        present.append(Caller(at=fast_at + i * PERIOD_S, values=(1.0,) * size, patience_s=room * alone_s(size)))
        # And those whom no device could serve, who are refused all the time and prove nothing.
        present.append(Caller(at=fast_at + (i + 0.8) * PERIOD_S, values=(1.0,), patience_s=A / 10))
    Simulation(POLICY, A, B, known_device(POLICY, A, B) if warmed else None, slowness).run([*past, *present])
    for caller in present[::2]:
        if caller.at >= fast_at + RECOVERY_S:
            assert isinstance(caller.outcomes[0], list), caller.outcomes
            assert caller.answered_at is not None
            assert caller.deadline is not None
            assert caller.answered_at <= caller.deadline + 1e-9


def request(rows: int, deadline: float | None, width: int = 1) -> InferenceRequest:
    return InferenceRequest({"x": np.zeros((rows, width), np.uint8)}, rows, Reply(), deadline=deadline)


def refused(scheduler: BatchScheduler, asked: InferenceRequest, now: float) -> bool:
    try:
        scheduler.admit(asked, now)
    except ServingError:
        return True
    return False


def test_what_no_device_could_meet_is_computed_rarely() -> None:
    """And never, while others of the kind are measured."""
    scheduler = BatchScheduler(POLICY, known_device(POLICY, A, B))
    probes = 0
    for i in range(1000):
        now = i * 0.01
        if not refused(scheduler, request(1, now + A / 10), now):
            probes += 1
            scheduler.finished(scheduler.take_batch(now), A + B)
    assert 15 <= probes <= 21  # one in half a second
    for i in range(1000, 2000):
        now = i * 0.01
        scheduler.admit(request(1, None), now)
        scheduler.finished(scheduler.take_batch(now), A + B)
        assert refused(scheduler, request(1, now + A / 10), now)


def test_no_second_probe_is_computed_while_the_first_one_runs() -> None:
    scheduler = BatchScheduler(POLICY, known_device(POLICY, A, B))
    assert refused(scheduler, request(1, 0.001), 0.0)
    assert not refused(scheduler, request(1, 1.001), 1.0)
    scheduler.take_batch(1.0)
    assert all(refused(scheduler, request(1, 1.001 + i / 100), 1.0 + i / 100) for i in range(40))


def test_a_prediction_is_tested_with_a_single_request_not_with_several_that_are_queued_as_one() -> None:
    scheduler = BatchScheduler(POLICY, known_device(POLICY, A, B))
    assert refused(scheduler, request(4, 0.001), 0.0)
    inputs = {"x": np.zeros((4, 1), np.uint8)}
    members = Members(tuple(Member(row, "", 1.0, 1.001) for row in range(4)))
    together = CoalescedRequest(inputs, members, Reply(), lambda _: Reply(), INTERACTIVE, form_of(inputs, 4))
    assert refused(scheduler, together, 1.0)
    assert not refused(scheduler, request(4, 1.001), 1.0)


def test_a_probe_whose_deadline_has_passed_is_not_computed() -> None:
    scheduler = BatchScheduler(POLICY, known_device(POLICY, A, B))
    assert refused(scheduler, request(1, 0.001), 0.0)
    probe = request(1, 1.001)
    scheduler.admit(probe, 1.0)
    assert probe.is_probe
    taken = scheduler.take_batch(1.001)
    assert [late for late, _ in taken.refused] == [probe]
    assert isinstance(taken.refused[0][1], DeadlineExceededError)
    assert not taken.slices


def test_a_stall_says_nothing_about_the_device() -> None:
    latency = known_device(POLICY, A, B)
    for stalled_s in (0.2, 10.0, 3600.0):
        latency.observe(1, stalled_s)
    assert latency.batch_s(1) == pytest.approx(A + B, rel=0.05)


def test_a_neighbours_long_turn_is_in_the_way_of_an_idle_model_for_half_a_second_at_most() -> None:
    scheduler = BatchScheduler(POLICY, known_device(POLICY, A, B))
    scheduler.admit(request(1, None), 0.0)
    scheduler.finished(scheduler.take_batch(30.0, waited_s=30.0), A + B)
    with pytest.raises(OverloadedError):
        scheduler.admit(request(1, 30.5), 30.1)
    probe = request(1, 31.0)
    scheduler.admit(probe, 30.7)
    assert probe.is_probe
    scheduler.finished(scheduler.take_batch(30.7, waited_s=0.0), A + B)
    scheduler.admit(other := request(1, 31.0), 30.8)
    assert not other.is_probe


def test_large_items_do_not_make_small_ones_late() -> None:
    scheduler = BatchScheduler(POLICY, LatencyModel(8))
    for i in range(100):
        for width, seconds in ((1, 0.001), (1000, 1.0)):
            scheduler.admit(request(1, None, width), float(i))
            scheduler.finished(scheduler.take_batch(float(i)), seconds)
    scheduler.admit(request(1, 200.01, width=1), 200.0)
    with pytest.raises(DeadlineExceededError):
        scheduler.admit(request(1, 200.5, width=1000), 200.0)
    assert (waiting := scheduler.next_batch(0.0)) is not None
    assert waiting.batch_s == pytest.approx(0.001, rel=0.01)


def test_rows_of_other_shapes_are_counted_with_what_they_take() -> None:
    scheduler = BatchScheduler(POLICY, LatencyModel(8))
    for width, seconds in ((1, 0.001), (1000, 1.05)):
        scheduler.admit(request(1, None, width), 0.0)
        scheduler.finished(scheduler.take_batch(0.0), seconds)
    small = [request(1, 9.0) for _ in range(5)]
    for one in small:
        scheduler.admit(one, 1.0)
    scheduler.admit(request(1, 2.1, width=1000), 1.0)  # five small ones take milliseconds
    with pytest.raises(OverloadedError):
        scheduler.admit(request(1, 2.02), 1.0)


def test_nothing_is_refused_on_a_guess() -> None:
    scheduler = BatchScheduler(POLICY, known_device(POLICY, 1.0, 0.0))
    with pytest.raises(DeadlineExceededError):
        scheduler.admit(request(1, 0.5), 0.0)
    scheduler.admit(request(1, 0.5, width=1000), 0.0)
    taken = scheduler.take_batch(0.0)
    assert len(taken.slices) == 1
    assert taken.done_at == pytest.approx(1.0)  # which is expected all the same


@pytest.mark.parametrize("spread", [1, 3])
def test_what_is_remembered_of_shapes_is_bounded(spread: int) -> None:
    latencies, doubt = ShapeLatencies(LatencyModel(8), 8), PredictionDoubt(8)
    for width, now in zip(range(0, 5000, spread), count()):
        key: tuple[tuple[tuple[int, ...], ...], int] = (((width,),), width)
        latencies[key].observe(1, 0.001)
        doubt.measured(key, 1, 0.001, now)
        doubt.allows_refusal(key, 1, 0.0001, now)
    assert len(latencies) == _MOST_SHAPES
    assert len(doubt._measured) == len(doubt._probe_at) == _MOST_KINDS


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(0, 10)), min_size=1, max_size=50), st.integers(1, 32))
def test_what_a_batch_took_at_most_is_expected_at_most(batches: Sequence[tuple[int, float]], rows: int) -> None:
    model = LatencyModel(32)
    for size, seconds in batches:
        model.observe(size, seconds)
    model.at_most(rows, 0.01)
    assert model.batch_s(rows) <= 0.01 * (1 + 1e-9)
    model.observe(rows, 0.01)
    assert 0 <= model.batch_s(rows) < 1e4
