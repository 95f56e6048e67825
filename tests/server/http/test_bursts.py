"""Bursts of requests: a device does not idle while all of one is read, and small or short ones stay whole."""

from hypothesis import given
from hypothesis import strategies as st

from inferry_server.http.bursts import Bursts

MOST = 32


def after(*under_way: int, came_s: float = 1.0, computed_s: float = 2.0) -> Bursts:
    """When requests were handed over so often, and then all of them answered."""
    bursts = Bursts(MOST)
    bursts.all_answered(5.0)
    for count in under_way:
        assert bursts.enough == MOST
        bursts.handed_over(count, 5.0 + came_s)
    assert bursts.enough == MOST
    bursts.all_answered(5.0 + came_s + computed_s)
    return bursts


def test_the_first_half_of_a_burst_waits_for_nothing_where_nothing_is_computed() -> None:
    assert after(20).enough == 10


def test_what_comes_while_something_is_computed_is_handed_over_whole() -> None:
    bursts = after(20)
    bursts.handed_over(10, 9.0)
    assert bursts.enough == MOST


def test_two_halves_that_took_turns_are_one_burst_when_they_meet() -> None:
    assert after(16, 32, 32, 31).enough == 16


def test_a_burst_that_is_computed_sooner_than_it_comes_stays_whole() -> None:
    assert after(32, came_s=1.0, computed_s=0.9).enough == MOST


def test_the_time_of_a_burst_counts_from_the_first_that_is_handed_over() -> None:
    bursts = Bursts(MOST)
    bursts.all_answered(0.0)
    bursts.handed_over(16, 1.0)
    bursts.handed_over(32, 3.0)
    bursts.all_answered(3.5)
    assert bursts.enough == 16


@given(st.lists(st.tuples(st.integers(0, 500) | st.none(), st.floats(0.0, 9.0)), max_size=40))
def test_few_requests_stay_together_and_many_are_never_held_back(told: list[tuple[int | None, float]]) -> None:
    bursts, peak, now = Bursts(MOST), 0, 0.0
    for under_way, passed in told:
        now += passed
        if under_way is None:
            bursts.all_answered(now)
            assert bursts.enough in (MOST, min((peak + 1) // 2, MOST))
            assert bursts.enough == MOST or peak >= 8
            peak = 0
        else:
            bursts.handed_over(under_way, now)
            peak = max(peak, under_way)
        assert 4 <= bursts.enough <= MOST
