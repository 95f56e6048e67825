"""What watching costs: which request belongs to which segment, and what is told of them."""

from pathlib import Path

import numpy as np
import pytest

from bench.watched import Measured, Round, Segment, ratios, read_times


def segment(begins: float) -> Segment:
    return Segment(begins, begins + 2, cpu_us=0.0)


def test_requests_belong_to_the_segment_in_which_they_were_due() -> None:
    taken = Round(alone=(segment(0.0), segment(9.0)), watched=(segment(3.0), segment(6.0)))
    began = np.array([9.5, 0.0, 2.0, 2.5, 3.0, 5.5, 6.1, 7.99, 8.0, 1.9])  # as they were answered
    found = Measured.of(taken, began, began / 10)
    assert [list(np.round(each * 10, 2)) for each in (*found.alone, *found.watched)] == [
        [0.0, 1.9], [9.5], [3.0], [6.1, 7.99]
    ]  # fmt: skip


@pytest.mark.parametrize("cost", [1.0, 1.3])
def test_what_watching_costs_is_told_apart_from_what_the_machine_does(cost: float) -> None:
    chance = np.random.default_rng(3)

    def latencies(factor: float) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
        return chance.lognormal(-7, 0.4, 2000) * factor * chance.lognormal(0, 0.1)  # other work, for a segment

    found = [
        Measured((latencies(1.0), latencies(1.0)), (latencies(cost), latencies(cost))) for _ in range(30)
    ]  # fmt: skip
    told = ratios(found)
    for how in ("paired", "pooled"):
        low, high = interval(told[f"watched / alone, {how}"])
        assert low <= cost <= high
        low, high = interval(told[f"alone again / alone, {how}"])
        assert low <= 1.0 <= high


def interval(told: object) -> tuple[float, float]:
    low, _, high = str(told).partition("95 %: ")[2].partition(";")[0].partition(" to ")
    return float(low), float(high)


def test_one_round_has_no_neighbour_of_its_own_kind() -> None:
    values = (np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert "alone again / alone, paired" not in ratios([Measured(values, values)])


def test_times_are_read_as_the_load_generator_writes_them(tmp_path: Path) -> None:
    np.array([1.0, 2.0, 3.0, 0.1, 0.2, 0.3]).tofile(tmp_path / "times")
    began, latencies = read_times(tmp_path / "times")
    assert (list(began), list(latencies)) == ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
