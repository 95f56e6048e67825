import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.samples import Spread, bare_batch_us, beyond_us, differences, ratios, spread

FIGURES = st.floats(0.001, 1e6)


@given(st.lists(FIGURES, min_size=1))
def test_a_median_lies_between_the_extremes(values: list[float]) -> None:
    figure = spread(values)
    assert (figure.least, figure.most) == (min(values), max(values))
    assert figure.least <= figure.median <= figure.most


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        spread([])


@given(st.lists(st.tuples(FIGURES, FIGURES), min_size=1), FIGURES)
def test_a_round_that_slows_both_changes_no_ratio(rounds: list[tuple[float, float]], slowdown: float) -> None:
    above, below = [a for a, _ in rounds], [b for _, b in rounds]
    slowed = ratios([above[0] * slowdown, *above[1:]], [below[0] * slowdown, *below[1:]])
    assert slowed.median == pytest.approx(ratios(above, below).median)


def test_ratios_and_differences_pair_the_rounds() -> None:
    assert ratios([2, 30, 4], [1, 10, 4]) == Spread(2, 1, 3)
    assert differences([2, 30, 4], [1, 10, 4]) == Spread(1, 0, 20)


def test_a_missing_round_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


@given(a=st.floats(0, 1e4), b=st.floats(1, 1e4), rows=st.floats(1, 64))
def test_a_straight_cost_is_met_between_and_beyond_the_measured_sizes(a: float, b: float, rows: float) -> None:
    costs = {size: a + b * size for size in (1, 2, 4, 8, 16, 32)}
    assert bare_batch_us(costs, rows) == pytest.approx(a + b * rows)


@given(st.dictionaries(st.integers(1, 64), st.floats(1, 1e6), min_size=2))
def test_a_measured_size_costs_what_was_measured(costs: dict[int, float]) -> None:
    for size, cost in costs.items():
        assert bare_batch_us(costs, size) == pytest.approx(cost)


def test_cpu_beyond_the_model_is_what_the_server_adds() -> None:
    costs = {1: 600.0, 32: 9_900.0}  # 300 an image and 300 a batch
    assert beyond_us(cpu_us=450, rows=10, costs=costs) == pytest.approx(450 - (300 + 3_000) / 10)
