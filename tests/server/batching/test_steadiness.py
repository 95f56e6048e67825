"""Which batches may be computed by the thread that reads requests, by how long those before took."""

from hypothesis import given
from hypothesis import strategies as st

from inferry_server.batching.latency import Steadiness

LIMIT_S = 0.02
SECONDS = st.floats(0, 10, allow_nan=False)


@given(st.lists(st.tuples(SECONDS, SECONDS)), SECONDS)
def test_a_model_that_computed_far_too_long_once_is_never_trusted_again(
    later: list[tuple[float, float]], expected_s: float
) -> None:
    steadiness = Steadiness(LIMIT_S)
    assert steadiness.observe(expected_s, 5.1 * LIMIT_S)
    for expected, took in later:
        assert not steadiness.observe(expected, took)
        assert steadiness.limit_s < 0


@given(st.lists(st.tuples(SECONDS, SECONDS)))
def test_the_limit_never_grows_beyond_the_setting(batches: list[tuple[float, float]]) -> None:
    steadiness = Steadiness(LIMIT_S)
    for expected, took in batches:
        steadiness.observe(expected, took)
        assert steadiness.limit_s <= LIMIT_S


@given(st.floats(0, LIMIT_S), st.lists(st.floats(0, 1), max_size=50))
def test_batches_that_take_no_longer_than_expected_leave_the_limit(expected_s: float, shares: list[float]) -> None:
    steadiness = Steadiness(LIMIT_S)
    for share in shares:
        assert not steadiness.observe(expected_s, share * expected_s)
    assert steadiness.limit_s == LIMIT_S


def test_what_took_longer_than_expected_is_forgotten_by_those_that_did_not() -> None:
    steadiness = Steadiness(LIMIT_S)
    for _ in range(10):
        steadiness.observe(0.001, LIMIT_S)
    assert steadiness.limit_s < 0.001
    for _ in range(30):
        steadiness.observe(0.001, 0.001)
    assert steadiness.limit_s > 0.9 * LIMIT_S
