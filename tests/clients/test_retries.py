import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.errors import InvalidRequestError, OverloadedError, ServerUnavailableError
from inferry_client.retries import NO_RETRIES, RetryPolicy, plan_retry, service_config

POLICY = RetryPolicy(max_attempts=4, initial_backoff_s=0.1, max_backoff_s=1.0)


@given(attempt=st.integers(1, 3), spread=st.floats(0, 1, exclude_max=True))
def test_pauses_grow_and_stay_within_the_policy(attempt: int, spread: float) -> None:
    pause = plan_retry(POLICY, ServerUnavailableError(""), attempt=attempt, spread=spread)
    backoff = 0.1 * 2 ** (attempt - 1)
    assert pause is not None
    assert backoff / 2 <= pause <= min(backoff, 1.0)


def test_the_last_attempt_is_the_last() -> None:
    assert plan_retry(POLICY, ServerUnavailableError(""), attempt=4, spread=0) is None


def test_the_longest_policy_still_has_a_pause() -> None:
    policy = RetryPolicy(max_attempts=100, max_backoff_s=86_400, backoff_multiplier=100)
    assert plan_retry(policy, ServerUnavailableError(""), attempt=99, spread=0) == 43_200


def test_a_request_that_can_never_succeed_is_not_repeated() -> None:
    assert plan_retry(POLICY, InvalidRequestError(""), attempt=1, spread=0) is None


def test_a_full_server_is_asked_again_when_it_said() -> None:
    error = OverloadedError("")
    error.retry_after_s = 2.5
    assert plan_retry(POLICY, error, attempt=1, spread=0) == 2.5


def test_the_service_config_retries_the_codes_of_away_stopped_and_full() -> None:
    retry = json.loads(service_config(RetryPolicy(max_attempts=9)))["methodConfig"][0]["retryPolicy"]
    assert retry["retryableStatusCodes"] == ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"]
    assert retry["maxAttempts"] == 5


def test_no_retries_means_no_policy() -> None:
    assert "retryPolicy" not in json.loads(service_config(NO_RETRIES))["methodConfig"][0]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"initial_backoff_s": 2.0}, "initial_backoff_s is 2.0"),
        ({"initial_backoff_s": 0.0001}, "initial_backoff_s is 0.0001"),
        ({"max_backoff_s": 1e300}, "max_backoff_s 1e\\+300"),
        ({"backoff_multiplier": 0.5}, "backoff_multiplier is 0.5"),
        ({"backoff_multiplier": float("inf")}, "backoff_multiplier is inf"),
        ({"max_attempts": 101}, "max_attempts is 101"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RetryPolicy(**settings)  # type: ignore[arg-type]
