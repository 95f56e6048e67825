"""Which of two versions on one device computes a request: the rules, one at a time."""

import math

import pytest

from inferry_server.batching.relief import TRANSITIONS, Event, Load, Phase, Relief, waits_s
from inferry_server.batching.request import InferenceRequest
from testkit.scheduling import NoReply, admit, scheduler, take

BASE = Load(rows=0, degraded_rows=0, rows_per_s=1000.0, batch_rows=64, most_rows=1024, is_refusing=False)
VARIANT = BASE._replace(rows_per_s=2000.0)


def relieved(*, since: float = 0.0) -> Relief:
    relief = Relief()
    relief.left(since)
    return relief


def leaves(relief: Relief, base: Load, variant: Load, *, left_s: float = 1.0) -> bool:
    return relief.leaves(base, variant, left_s=left_s)


def come(relief: Relief, rows: int, *, until: float) -> None:
    """So many rows come, the last of them at a time."""
    relief.count(rows, until, lambda: BASE.rows_per_s)


def test_a_base_is_not_relieved_before_it_refused_something() -> None:
    assert not Relief().active
    assert relieved().active


@pytest.mark.parametrize(
    ("base_rows", "variant_rows", "left"), [(64, 0, False), (65, 0, True), (0, 128, False), (40, 50, True)]
)
def test_a_relieved_base_takes_a_request_while_no_full_batch_waits_for_the_device(
    base_rows: int, variant_rows: int, *, left: bool
) -> None:
    variant = VARIANT._replace(rows=variant_rows, degraded_rows=variant_rows)
    assert leaves(relieved(), BASE._replace(rows=base_rows), variant) is left


@pytest.mark.parametrize("who", ["base", "variant"])
def test_while_one_of_both_refuses_requests_the_base_takes_none_that_accepts_the_variant(who: str) -> None:
    base, variant = (one._replace(is_refusing=name == who) for name, one in (("base", BASE), ("variant", VARIANT)))
    assert leaves(relieved(), base, variant)


def test_the_base_takes_what_it_can_where_the_variant_has_mostly_requests_of_its_own() -> None:
    variant = VARIANT._replace(rows=200, is_refusing=True)
    assert not leaves(relieved(), BASE, variant._replace(degraded_rows=99))  # it answers more of them itself
    assert leaves(relieved(), BASE, variant._replace(degraded_rows=100))


def test_a_base_is_relieved_for_as_long_as_more_comes_than_it_could_compute() -> None:
    relief, base = relieved(), BASE._replace(rows=65)
    for second in (1, 2, 3):
        come(relief, 1001, until=second)
        assert leaves(relief, base, VARIANT)
    come(relief, 1000, until=4.0)
    assert relief.active
    assert not leaves(relief, base, VARIANT)
    come(relief, 1, until=4.9)
    assert relief.active
    come(relief, 1, until=5.0)
    assert not relief.active


def test_a_base_that_nobody_asked_for_long_is_not_relieved_for_long() -> None:
    relief = relieved()
    come(relief, 64, until=60.0)
    assert not leaves(relief, BASE._replace(rows=65), VARIANT)
    come(relief, 64, until=61.0)
    assert not relief.active


@pytest.mark.parametrize(("left_s", "allowed"), [(1.0, 500), (math.inf, 512), (0.02, 64)])
def test_a_base_that_is_tried_takes_what_waits_for_half_of_its_time(left_s: float, allowed: int) -> None:
    relief = relieved()
    come(relief, 1, until=1.0)
    assert not leaves(relief, BASE._replace(rows=allowed), VARIANT, left_s=left_s)
    assert leaves(relief, BASE._replace(rows=allowed + 1), VARIANT, left_s=left_s)


@pytest.mark.parametrize("again", ["left", "more"])
def test_a_base_that_is_tried_is_relieved_again_where_that_does_not_do(again: str) -> None:
    relief, base = relieved(), BASE._replace(rows=65)
    come(relief, 1, until=1.0)
    assert not leaves(relief, base, VARIANT)
    if again == "left":
        relief.left(1.9)
    else:
        come(relief, 1100, until=2.0)
    assert leaves(relief, base, VARIANT)
    come(relief, 1, until=2.89)
    assert leaves(relief, base, VARIANT)


def test_two_threads_may_judge_the_last_second() -> None:
    relief = relieved()
    for second in (1.0, 2.0, 3.0):
        come(relief, 1, until=second)
    assert not relief.active


def test_no_event_is_missing_from_the_table() -> None:
    assert {phase for after in TRANSITIONS.values() for phase in after.values()} == set(Phase)
    assert all(set(after) == set(Event) for after in TRANSITIONS.values())


def test_a_device_of_unknown_speed_is_not_judged_by_what_waits() -> None:
    unknown = BASE._replace(rows=5000, rows_per_s=0.0)
    assert waits_s(unknown, VARIANT) == waits_s(VARIANT, unknown) == 0.0
    assert not leaves(relieved(), unknown, VARIANT)


def test_a_lane_counts_the_rows_that_wait_in_place_of_another_version() -> None:
    queue = scheduler(a=0.01)
    own = InferenceRequest({}, 1, NoReply())
    degraded = [InferenceRequest({}, rows, NoReply(), degraded_from="base/1") for rows in (3, 2, 6)]
    admit(queue, own, *degraded)
    load = queue.load(is_refusing=False)
    assert (load.rows, load.degraded_rows, load.batch_rows, load.most_rows) == (12, 11, 4, 16)
    queue.settle(degraded[1])
    assert queue.load(is_refusing=False).degraded_rows == 9
    take(queue)  # own, and three
    assert queue.load(is_refusing=False)[:2] == (6, 6)
    take(queue)  # a part of the last one
    assert queue.load(is_refusing=False)[:2] == (2, 2)
    queue.settle(degraded[2])
    assert queue.load(is_refusing=True) == load._replace(rows=0, degraded_rows=0, is_refusing=True)
