"""Ratios of two states that take turns: what the intervals hold, and how often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.paired import Ratio, mean_ratio, median_ratio, quantile_ratio

POSITIVE = st.floats(0.01, 100.0)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=40))
def test_an_interval_holds_the_ratio_that_it_is_of(pairs: list[tuple[float, float]]) -> None:
    ratio = median_ratio(pairs)
    assert ratio.of == len(pairs)
    assert (ratio.low is None) is (ratio.high is None) is (len(pairs) < 6)  # six heads in six throws: 3 % both ways
    if ratio.low is not None and ratio.high is not None:
        assert ratio.low <= ratio.value <= ratio.high
        assert {ratio.low, ratio.high} <= {second / first for first, second in pairs}


def test_the_sign_tests_interval_leaves_the_truth_out_in_few_of_many_measurements() -> None:
    chance, left_out = np.random.default_rng(1), 0
    for _ in range(1000):
        first, second = np.exp(chance.standard_cauchy((2, 20)).clip(-20, 20))  # as ill behaved as noise can be
        ratio = median_ratio(list(zip(first, second * 1.05, strict=True)))
        assert ratio.low is not None
        assert ratio.high is not None
        left_out += not ratio.low <= 1.05 <= ratio.high
    assert left_out <= 50


@pytest.mark.parametrize("factor", [1.0, 1.05, 1.5])
def test_a_quantile_that_grows_is_seen_and_one_that_stays_is_not(factor: float) -> None:
    chance = np.random.default_rng(2)
    rounds = [(chance.lognormal(-7, 0.5, 4000), chance.lognormal(-7, 0.5, 4000) * factor) for _ in range(30)]
    ratio = quantile_ratio(rounds, 0.99)
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low - 0.004 <= factor <= ratio.high + 0.004
    assert ratio.high - ratio.low < 0.1
    assert (ratio.low > 1.002) is (factor > 1.0)


def test_a_quantile_is_that_of_all_latencies_together() -> None:
    first, second = np.arange(1, 1001) / 1e3, np.arange(1, 1001) / 5e2
    split = [(first[:300], second[:500]), (first[300:], second[500:])]
    for share in (0.5, 0.99):
        expected = np.quantile(second, share) / np.quantile(first, share)
        assert quantile_ratio(split, share).value == pytest.approx(expected, rel=0.01)


def test_what_is_shorter_or_longer_than_any_bucket_is_counted_in_the_last_one() -> None:
    rounds = [(np.array([0.0, 1e-9]), np.array([1e9, 2e9]))] * 2
    assert quantile_ratio(rounds, 0.5).value == pytest.approx(1e7, rel=0.01)


def test_too_little_for_an_interval_is_said() -> None:
    assert str(median_ratio([(1.0, 2.0)])) == "2.000 (of 1: too few for an interval)"
    assert str(Ratio(1.0, 0.9, 1.1, 8)) == "1.000 (95 %: 0.900 to 1.100; of 8)"
    assert quantile_ratio([(np.array([1.0]), np.array([1.0]))], 0.99).low is None


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=40))
def test_a_mean_ratio_lies_in_its_interval_and_among_the_ratios(pairs: list[tuple[float, float]]) -> None:
    ratio, ratios = mean_ratio(pairs), [second / first for first, second in pairs]
    assert min(ratios) * 0.999 <= ratio.value <= max(ratios) * 1.001
    assert (ratio.low is None) is (len(pairs) < 6)
    if ratio.low is not None and ratio.high is not None:
        assert min(ratios) * 0.999 <= ratio.low <= ratio.high <= max(ratios) * 1.001


def test_the_mean_ratios_interval_leaves_the_truth_out_in_few_of_many_measurements() -> None:
    chance, left_out = np.random.default_rng(5), 0
    for _ in range(400):
        first, second = np.exp(chance.standard_t(3, (2, 30)) * 0.05)  # now and then a slice is far off
        ratio = mean_ratio(list(zip(first, second * 1.05, strict=True)))
        assert ratio.low is not None
        assert ratio.high is not None
        left_out += not ratio.low <= 1.05 <= ratio.high
    assert left_out <= 32  # 5 % are 20, and the bootstrap of few pairs is a little narrow
