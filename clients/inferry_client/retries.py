"""When to ask again: the policy gRPC follows inside a call, and what longer jobs add to it."""

import json
from dataclasses import dataclass

from inferry_client.errors import InferryError, OverloadedError
from inferry_client.limits import MAX_SECONDS

_GRPC_MAX_ATTEMPTS = 5  # gRPC silently lowers anything above
_MIN_BACKOFF_S = 0.001  # gRPC is told milliseconds
_MAX_ATTEMPTS, _MAX_MULTIPLIER = 100, 100.0  # the largest power, 100^99, is still a number


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon to ask again.

    Attributes:
        max_attempts: the first one included; 1 never asks twice.
        initial_backoff_s: about how long the first pause is.
        max_backoff_s: about how long the longest is.
        backoff_multiplier: how each grows over the one before.
    """

    max_attempts: int = 5
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 1.0
    backoff_multiplier: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= _MAX_ATTEMPTS:
            raise ValueError(f"max_attempts is {self.max_attempts}; expected 1 to {_MAX_ATTEMPTS}")
        if not _MIN_BACKOFF_S <= self.initial_backoff_s <= self.max_backoff_s <= MAX_SECONDS:
            raise ValueError(
                f"initial_backoff_s is {self.initial_backoff_s} and max_backoff_s {self.max_backoff_s}; "
                f"expected {_MIN_BACKOFF_S:g} <= initial <= max <= {MAX_SECONDS:g}"
            )
        if not 1 <= self.backoff_multiplier <= _MAX_MULTIPLIER:
            raise ValueError(f"backoff_multiplier is {self.backoff_multiplier}; expected 1 to {_MAX_MULTIPLIER:g}")


DEFAULT_RETRIES = RetryPolicy()
NO_RETRIES = RetryPolicy(max_attempts=1)


def service_config(policy: RetryPolicy) -> str:
    """The gRPC service config that makes a channel follow a policy.

    RESOURCE_EXHAUSTED is listed because gRPC heeds a server's `grpc-retry-pushback-ms` only for
    codes that the policy retries; CANCELLED because a server that stops answers so to calls that it
    had not begun. Every call of the client may be made twice, and none that it cancelled itself is.
    """
    method: dict[str, object] = {"name": [{}]}
    if policy.max_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": min(policy.max_attempts, _GRPC_MAX_ATTEMPTS),
            "initialBackoff": f"{policy.initial_backoff_s:.3f}s",
            "maxBackoff": f"{policy.max_backoff_s:.3f}s",
            "backoffMultiplier": policy.backoff_multiplier,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
        }
    return json.dumps({"methodConfig": [method]})


def plan_retry(policy: RetryPolicy, error: InferryError, *, attempt: int, spread: float) -> float | None:
    """How many seconds to wait before asking again; None: give up.

    Args:
        policy: of the job.
        error: what the last attempt ended with.
        attempt: its number, from 1.
        spread: a random number in [0, 1): half of every backoff is random, so that callers
            refused together do not come back together.
    """
    if not error.retryable or attempt >= policy.max_attempts:
        return None
    backoff_s = min(policy.max_backoff_s, policy.initial_backoff_s * policy.backoff_multiplier ** (attempt - 1))
    backoff_s *= 0.5 + spread / 2
    if isinstance(error, OverloadedError) and error.retry_after_s is not None:
        return max(error.retry_after_s, backoff_s)
    return backoff_s
