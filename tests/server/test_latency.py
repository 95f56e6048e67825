import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.batching.latency import LatencyModel

A, B = 0.002, 0.0005


def learn(model: LatencyModel, a: float, b: float, batches: int, *, noise: float = 0.05, seed: int = 1) -> None:
    randomness = random.Random(seed)
    for _ in range(batches):
        rows = randomness.randint(1, 32)
        model.observe(rows, (a + b * rows) * randomness.gauss(1, noise))


@pytest.mark.parametrize("seed", range(20))
def test_after_two_hundred_batches_both_are_found_within_ten_percent_and_follow_a_change(seed: int) -> None:
    model = LatencyModel(32)
    learn(model, A, B, 200, seed=seed)
    assert model.a == pytest.approx(A, rel=0.1)
    assert model.b == pytest.approx(B, rel=0.1)
    learn(model, 3 * A, B / 2, 200, seed=seed)
    assert model.a == pytest.approx(3 * A, rel=0.1)
    assert model.b == pytest.approx(B / 2, rel=0.1)


def test_nothing_is_claimed_before_anything_was_measured() -> None:
    assert LatencyModel(32).total_s(1000) == 0


def test_batches_of_one_size_do_not_make_it_forget_the_other_sizes() -> None:
    model = LatencyModel(32)
    learn(model, A, B, 200, noise=0)
    for _ in range(5000):
        model.observe(32, A + 32 * B)
    assert model.batch_s(1) == pytest.approx(A + B, rel=0.2)
    for _ in range(200):
        model.observe(32, 2 * (A + 32 * B))
    assert model.batch_s(32) == pytest.approx(2 * (A + 32 * B), rel=0.05)


def test_rows_beyond_a_batch_take_further_batches() -> None:
    model = LatencyModel(4)
    for _ in range(50):
        model.observe(1, 0.3)
        model.observe(4, 0.6)
    assert model.total_s(10) == pytest.approx(2 * 0.6 + 0.4, rel=1e-3)
    assert model.total_s(0) == 0


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(0, 10)), max_size=300))
def test_whatever_is_observed_a_prediction_is_finite_and_never_negative(batches: list[tuple[int, float]]) -> None:
    model = LatencyModel(32)
    for rows, seconds in batches:
        model.observe(rows, seconds)
    assert all(0 <= model.batch_s(rows) < 1e4 for rows in (1, 7, 32))
