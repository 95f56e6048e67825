"""When to ask again: pauses, and the budget that keeps retries from drowning a server that is full."""

from dataclasses import dataclass
from numbers import Real

from inferry_client.errors import DeadlineExceededError, InferryError, OverloadedError, ServerUnavailableError
from inferry_client.limits import MAX_SECONDS, check_kind, check_whole_number

_MIN_BACKOFF_S = 0.001
_MAX_ATTEMPTS, _MAX_MULTIPLIER = 1000, 100.0
_MAX_POWER = 60  # of the multiplier; beyond it every pause is the longest one
_LAST_PAUSE_S = 0.01  # with less time than that left, asking again cannot succeed
_AWAY_RETRIES_PER_CALL = 12  # what one call may use up in a restart of ten seconds


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon to ask again.

    Attributes:
        max_attempts: the first one included; 1 never asks twice, None asks until the deadline.
        initial_backoff_s: about how long the first pause is.
        max_backoff_s: about how long the longest is.
        backoff_multiplier: how each grows over the one before.
        budget: refusals in a row, of all calls of a client together, after half of which a server
            that is full is not asked again.
        budget_per_answer: what an answer gives back of that.
    """

    max_attempts: int | None = None
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 1.0
    backoff_multiplier: float = 2.0
    budget: int = 100
    budget_per_answer: float = 0.1

    def __post_init__(self) -> None:
        if self.max_attempts is not None:
            check_whole_number("max_attempts", self.max_attempts, 1, _MAX_ATTEMPTS)
        for name in ("initial_backoff_s", "max_backoff_s", "backoff_multiplier", "budget_per_answer"):
            check_kind(name, getattr(self, name), Real, "a number")
        if not _MIN_BACKOFF_S <= self.initial_backoff_s <= self.max_backoff_s <= MAX_SECONDS:
            raise ValueError(
                f"initial_backoff_s is {self.initial_backoff_s} and max_backoff_s {self.max_backoff_s}; "
                f"expected {_MIN_BACKOFF_S:g} <= initial <= max <= {MAX_SECONDS:g}"
            )
        if not 1 <= self.backoff_multiplier <= _MAX_MULTIPLIER:
            raise ValueError(f"backoff_multiplier is {self.backoff_multiplier}; expected 1 to {_MAX_MULTIPLIER:g}")
        check_whole_number("budget", self.budget, 1, 1_000_000)
        if not 0 <= self.budget_per_answer <= 1:
            raise ValueError(f"budget_per_answer is {self.budget_per_answer}; expected 0 to 1")


DEFAULT_RETRIES = RetryPolicy()
NO_RETRIES = RetryPolicy(max_attempts=1)


class RetryBudget:
    """Tokens that all calls of a client share, as gRPC's retry throttling has them (gRFC A6).

    A refusal takes one, an answer gives a fraction back. A server that is full is asked again only
    while more than half are left: under lasting overload that keeps retries to a tenth of the
    answers. A server that is away loses nothing by being asked; there the calls under way may use
    up a dozen each beyond the tokens, so that a restart does not fail the callers it meets.

    A server that could not be reached at all has not been asked, and costs no token.

    Attributes:
        spent: tokens; while it is 0, answers need not be counted.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._tokens = float(policy.budget)
        self._per_answer = policy.budget_per_answer
        self.spent = 0.0

    def answered(self) -> None:
        """A call was answered."""
        self.spent = max(0.0, self.spent - self._per_answer)

    def allows(self, error: InferryError, *, retrying: int) -> bool:
        """Count a refusal and say whether to ask again.

        Args:
            error: what the server said.
            retrying: calls under way that have been refused at least once, this one included.
        """
        if isinstance(error, ServerUnavailableError) and error.unreached:
            return True
        overloaded = isinstance(error, OverloadedError)
        most = self._tokens / 2 if overloaded else self._tokens + _AWAY_RETRIES_PER_CALL * retrying
        self.spent = min(self.spent + 1, max(most, self.spent))
        return self.spent < most  # guard: client-budget


def plan_retry(
    policy: RetryPolicy, error: InferryError, *, attempt: int, spread: float, remaining_s: float = MAX_SECONDS
) -> float | None:
    """How many seconds to wait before asking again; None: give up.

    Args:
        policy: of the client or the job.
        error: what the last attempt ended with.
        attempt: its number, from 1.
        spread: a random number in [0, 1): half of every backoff is random, so that callers
            refused together do not come back together.
        remaining_s: until the deadline. A server that wants to be asked later than that is not
            asked again; our own pauses shrink to half of it.
    """
    if not error.retryable or (policy.max_attempts is not None and attempt >= policy.max_attempts):
        return None
    wish_s = error.retry_after_s
    if wish_s is not None and wish_s >= remaining_s - _LAST_PAUSE_S:  # guard: client-late-wish
        return None
    power = min(attempt - 1, _MAX_POWER)
    backoff_s = min(policy.max_backoff_s, policy.initial_backoff_s * policy.backoff_multiplier**power)
    backoff_s *= 0.5 + spread / 2
    if wish_s is not None:
        return min(max(wish_s, backoff_s), remaining_s - _LAST_PAUSE_S)
    pause_s = min(backoff_s, remaining_s / 2)
    return pause_s if pause_s >= min(_LAST_PAUSE_S, backoff_s) else None


def may_repeat(error: InferryError) -> bool:
    """Whether the same call may be made again while its deadline has not passed."""
    return error.retryable and not isinstance(error, DeadlineExceededError)
