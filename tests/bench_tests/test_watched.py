"""What watching costs: which request belongs to which slice, and what is told of them."""

import json

import numpy as np
import pytest

from bench.paired import Latencies, Ratio
from bench.watched import Measured, Slice, measured, told, verdict

LATE_S = 0.002


def a_slice(begins: float, *, watched: bool) -> Slice:
    return Slice(watched, begins, begins + 2, cpu_us=7.0)


def rows(times: list[float]) -> Latencies:
    """Requests that were due then, and took a tenth of that; as they were answered."""
    return np.array([times, [time / 10 for time in times]])


def test_requests_belong_to_the_slice_in_which_they_were_due_alone_first() -> None:
    due = [9.5, 0.0, 2.0, 2.5, 3.0, 5.5, 6.1, 7.99, 8.0, 1.9, 11.5]
    taken = [
        (a_slice(0.0, watched=False), a_slice(3.0, watched=True)),
        (a_slice(6.0, watched=True), a_slice(9.0, watched=False)),
    ]
    found = measured(taken, rows(due), rows(due))
    shown = [[list(np.round(one.latencies * 10, 2)) for one in pair] for pair in found]
    assert shown == [[[0.0, 1.9], [3.0]], [[9.5], [6.1, 7.99]]]
    assert found[0][1].lag_s == pytest.approx(0.3)


def test_slices_that_the_load_did_not_last_for_are_left_out() -> None:
    due = [1.0, 2.0, 5.0, 8.0]
    before = (a_slice(0.5, watched=False), a_slice(4.0, watched=True))
    after = (a_slice(4.0, watched=False), a_slice(7.0, watched=True))
    assert measured([before, after], rows(due), rows(due)) == []


def test_a_slice_without_an_answer_is_left_out() -> None:
    taken = [(a_slice(1.0, watched=False), a_slice(4.0, watched=True))]
    assert measured(taken, rows([1.5]), rows([0.0, 1.5, 4.5, 9.0])) == []


def pairs(
    cost: float, *, count: int = 30, noise: float = 0.03, lag_s: float = 0.0001
) -> list[tuple[Measured, Measured]]:
    """As a server gives them on which each slice is a little different, and one of twenty disturbed by other work."""
    chance = np.random.default_rng(3)

    def one(factor: float) -> Measured:
        burst = 4.0 if chance.random() < 0.05 else 1.0
        latencies = chance.lognormal(-7, 0.4, 2000) * factor * burst * chance.lognormal(0, noise)
        return Measured(latencies, lag_s, 7.0)

    return [(one(1.0), one(cost)) for _ in range(count)]


@pytest.mark.parametrize(("cost", "so"), [(1.0, "holds"), (1.15, "missed")])
def test_what_watching_costs_is_told_apart_from_what_the_machine_does(cost: float, so: str) -> None:
    found = told(pairs(cost))
    low, high = interval(found["watched / alone, paired"])
    assert low <= cost <= high
    assert high / low < 1.1
    low, high = interval(found["alone / alone, paired"])
    assert low <= 1.0 <= high
    assert found["so"] == so
    json.dumps(found)


def test_a_restless_machine_shows_nothing() -> None:
    assert str(told(pairs(1.0, noise=1.0))["so"]).startswith("nothing is shown")


@pytest.mark.parametrize(
    ("effect", "control", "so"),
    [
        (Ratio(1.0, 0.98, 1.05, 30), Ratio(1.0, 0.97, 1.03, 15), "holds"),
        (Ratio(1.1, 1.06, 1.2, 30), Ratio(1.0, 0.97, 1.03, 15), "missed"),
        (Ratio(1.03, 0.99, 1.07, 30), Ratio(1.0, 0.97, 1.03, 15), "both"),
        (Ratio(1.0, 0.98, 1.02, 30), Ratio(1.04, 1.01, 1.07, 15), "nobody watched"),
        (Ratio(1.0, 0.98, 1.02, 30), Ratio(1.09, 0.9, 1.3, 15), "nobody watched"),
        (Ratio(0.92, 0.83, 1.02, 38), Ratio(1.0, 0.9, 1.3, 19), "nobody watched"),
        (Ratio(0.92, 0.83, 1.02, 38), Ratio(1.0, 0.8, 1.1, 19), "nobody watched"),
        (Ratio(1.0, 0.98, 1.02, 30), Ratio(1.0, None, None, 3), "too few"),
        (Ratio(1.0, None, None, 5), Ratio(1.0, 0.97, 1.03, 15), "too few"),
        (Ratio(1.0, 0.98, 1.02, 30), None, "too few"),
    ],
)
def test_only_a_run_whose_control_is_near_one_shows_anything(effect: Ratio, control: Ratio | None, so: str) -> None:
    assert so in verdict(effect, control)


def test_pairs_in_which_the_client_was_late_are_told_apart() -> None:
    found = told(pairs(1.0, count=10) + pairs(2.0, count=5, lag_s=LATE_S))
    assert found["pairs in which the client was late"] == 5
    assert "of 15)" in str(found["watched / alone, paired"])
    assert "of 10)" in str(found["watched / alone, paired, client on time"])


def test_a_single_pair_is_told_of_without_a_verdict() -> None:
    found = told(pairs(1.0, count=1, lag_s=LATE_S))
    assert found["so"] == "nothing is shown: too few pairs; but the client itself was late in 1 of 1 pairs"
    assert found["watched / alone, paired, client on time"] == "none of the pairs"


def interval(shown: object) -> tuple[float, float]:
    low, _, high = str(shown).partition("95 %: ")[2].partition(";")[0].partition(" to ")
    return float(low), float(high)
