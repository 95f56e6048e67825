"""Two generators look for a server's peak in turns, by one rule."""

import itertools
from collections.abc import Callable

import pytest

from bench.loadgen_peaks import NoPeakError, Trial, Try, peaks_in_turns


def way(holds: Callable[[float], Trial], tried: list[str], name: str) -> Try:
    def trial(rate: float, _: int) -> Trial:
        tried.append(name)
        return holds(rate)

    return trial


def test_trials_take_turns_until_both_peaks_are_found() -> None:
    tried: list[str] = []
    ways = (
        way(lambda rate: Trial(rate <= 1000), tried, "theirs"),
        way(lambda rate: Trial(rate <= 1040), tried, "ours"),
    )
    theirs, ours = peaks_in_turns(ways, start=400)
    assert 950 < theirs <= 1000
    assert 988 < ours <= 1040
    assert tried[:6] == ["theirs", "ours"] * 3
    assert abs(tried.count("theirs") - tried.count("ours")) <= 4


@pytest.mark.parametrize("disturbed_way", [0, 1])
def test_a_trial_that_other_programs_disturbed_is_made_again_whosever_it_was(disturbed_way: int) -> None:
    """Other programs run during two of three trials; a rate is given up after two that were not held."""
    numbers = itertools.count()

    def disturbed(rate: float) -> Trial:
        quiet = next(numbers) % 3 == 0
        return Trial(quiet and rate <= 1000, disturbed=not quiet)

    ways = [way(lambda rate: Trial(rate <= 1000), [], ""), way(disturbed, [], "")]
    first, second = peaks_in_turns((ways[disturbed_way], ways[1 - disturbed_way]), start=400)
    assert first == second


def test_a_way_that_holds_no_rate_is_an_error() -> None:
    ways = (way(lambda rate: Trial(rate <= 1000), [], ""), way(lambda _: Trial(held=False), [], ""))
    with pytest.raises(NoPeakError, match="None"):
        peaks_in_turns(ways, start=400)
