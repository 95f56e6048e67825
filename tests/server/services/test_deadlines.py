"""When a request must be answered: the earliest of what is stated, else an objective."""

import pytest

from inferry_server.batching.request import DeadlinePolicy

NOW = 100.0


@pytest.mark.parametrize(
    ("call_deadline", "timeout_s", "deadline"),
    [(103.0, None, 103.0), (None, 2.0, 102.0), (103.0, 2.0, 102.0), (101.0, 2.0, 101.0)],
)
def test_the_earliest_that_is_stated_counts_and_no_objective_beside_it(
    call_deadline: float | None, timeout_s: float | None, deadline: float
) -> None:
    policy = DeadlinePolicy(objective_s=0.5)
    stated = policy.deadline(NOW, call_deadline=call_deadline, timeout_s=timeout_s, model_objective_s=0.1)
    assert stated == deadline


@pytest.mark.parametrize(
    ("servers", "models", "deadline"), [(None, None, None), (0.5, None, 100.5), (None, 2.0, 102.0), (0.5, 2.0, 102.0)]
)
def test_where_nothing_is_stated_the_models_objective_goes_before_the_servers(
    servers: float | None, models: float | None, deadline: float | None
) -> None:
    policy = DeadlinePolicy(objective_s=servers)
    assert policy.deadline(NOW, call_deadline=None, timeout_s=None, model_objective_s=models) == deadline
