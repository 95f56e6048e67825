import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_trainer.blocks.regularization import dropout, l2_penalty

seeds = st.integers(0, 2**32 - 1)
examples = settings(max_examples=25)


@examples
@given(seed=seeds, rate=st.floats(0, 0.95))
def test_a_unit_is_dropped_or_grows(seed: int, rate: float) -> None:
    a = np.random.default_rng(seed).normal(size=(3, 4))
    dropped = dropout(a, rate, generator=np.random.default_rng(seed))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], a[kept] / (1 - rate))


def test_dropout_leaves_the_mean_where_it_was() -> None:
    dropped = dropout(np.ones(100_000), 0.5, generator=np.random.default_rng(0))
    assert set(dropped.tolist()) == {0.0, 2.0}
    assert dropped.mean() == pytest.approx(1, abs=0.02)  # six standard deviations


def test_dropout_is_a_function_of_its_generator() -> None:
    once, again = (dropout(np.ones(50), 0.5, generator=np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_nothing_is_dropped_at_inference() -> None:
    a = np.ones(5)
    kept = dropout(a, 0.5, generator=np.random.default_rng(0), training=False)
    np.testing.assert_array_equal(kept, a)
    assert kept is not a


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_no_probability_below_one_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate: expected a probability in \[0, 1\)"):
        dropout([1.0], rate, generator=np.random.default_rng(0))


@examples
@given(seed=seeds)
def test_the_l2_penalty_is_that_of_keras(seed: int) -> None:
    w = np.random.default_rng(seed).normal(size=(3, 3, 2, 4)).astype(np.float32)
    assert l2_penalty(w, 0.001) == pytest.approx(float(keras.regularizers.L2(0.001)(w)), rel=1e-5)


@pytest.mark.parametrize("strength", [-0.001, float("nan")])
def test_a_strength_below_zero_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength: expected a number not below 0"):
        l2_penalty([1.0], strength)
