from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.errors import InferryError, InvalidRequestError, OverloadedError, ServerUnavailableError
from inferry_client.retries import RetryBudget, RetryPolicy, plan_retry

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


@given(attempt=st.integers(1, 10_000), spread=st.floats(0, 1, exclude_max=True), remaining_s=st.floats(0.05, 10))
def test_without_a_limit_pauses_go_on_and_leave_time_before_the_deadline(
    attempt: int, spread: float, remaining_s: float
) -> None:
    pause = plan_retry(
        RetryPolicy(), ServerUnavailableError(""), attempt=attempt, spread=spread, remaining_s=remaining_s
    )
    assert pause is not None
    assert 0 < pause <= remaining_s / 2


def test_a_server_that_wants_to_be_asked_after_the_deadline_is_not_asked_again() -> None:
    error = OverloadedError("")
    error.retry_after_s = 2.5
    assert plan_retry(POLICY, error, attempt=1, spread=0, remaining_s=2.4) is None


def _refused_until_the_budget_ends(budget: RetryBudget, error: InferryError, *, retrying: int) -> int:
    allowed = (budget.allows(error, retrying=retrying) for _ in range(10_000))
    return sum(1 for _ in takewhile(bool, allowed))


def test_a_full_server_is_not_asked_again_once_half_of_the_budget_is_used() -> None:
    budget = RetryBudget(RetryPolicy(budget=100))
    assert _refused_until_the_budget_ends(budget, OverloadedError(""), retrying=1000) == 49


@given(answers_between=st.integers(1, 50))
def test_under_lasting_overload_retries_are_a_tenth_of_the_answers(answers_between: int) -> None:
    budget = RetryBudget(RetryPolicy(budget_per_answer=0.1))
    _refused_until_the_budget_ends(budget, OverloadedError(""), retrying=1)
    retries = 0
    for _ in range(200):
        for _ in range(answers_between):
            budget.answered()
        retries += budget.allows(OverloadedError(""), retrying=1)
    assert retries <= 200 * answers_between * 0.1 + 1


def test_calls_that_a_restart_meets_may_ask_beyond_the_budget_but_not_for_ever() -> None:
    budget = RetryBudget(RetryPolicy(budget=100))
    assert _refused_until_the_budget_ends(budget, ServerUnavailableError(""), retrying=64) == 99 + 12 * 64


def test_a_server_that_was_not_reached_costs_nothing_of_the_budget() -> None:
    budget, error = RetryBudget(RetryPolicy(budget=2)), ServerUnavailableError("")
    error.unreached = True
    assert all(budget.allows(error, retrying=1) for _ in range(1000))
    assert budget.allows(ServerUnavailableError(""), retrying=1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"initial_backoff_s": 2.0}, "initial_backoff_s is 2.0"),
        ({"initial_backoff_s": 0.0001}, "initial_backoff_s is 0.0001"),
        ({"max_backoff_s": 1e300}, "max_backoff_s 1e\\+300"),
        ({"backoff_multiplier": 0.5}, "backoff_multiplier is 0.5"),
        ({"backoff_multiplier": float("inf")}, "backoff_multiplier is inf"),
        ({"max_attempts": 1001}, "max_attempts is 1001"),
        ({"budget": 0}, "budget is 0"),
        ({"budget_per_answer": 1.5}, "budget_per_answer is 1.5"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RetryPolicy(**settings)  # type: ignore[arg-type]
