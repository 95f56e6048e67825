"""By which runs the versions of a model are compared."""

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.datatypes import DATATYPES, Arrays
from inferry_server.errors import InferenceError
from inferry_server.models.quickest import TimedRun, quickest_runs, time_in_turns
from inferry_server.models.reshaping import Reshaping
from inferry_server.signature import Signature, TensorSpec
from inferry_server.telemetry.statistics import VersionStatistics
from testkit.clock import ManualClock

SIZES = (1, 2, 4, 8)
SIGNATURE = Signature(
    inputs=(TensorSpec("x", DATATYPES["UINT8"], (-1, 2)),), outputs=(TensorSpec("y", DATATYPES["UINT8"], (-1, 2)),)
)


@given(st.integers(0, 1000), st.sampled_from([1.0, 1.3]))
def test_a_slower_version_is_seen_whatever_else_is_on_the_cores(seed: int, slowness: float) -> None:
    chance, clock = random.Random(seed), ManualClock()

    def computes(row_s: float) -> TimedRun:
        return lambda rows: clock.advance(row_s * rows * (1 if chance.random() < 0.5 else chance.uniform(1, 5)))

    stable, canary = quickest_runs([computes(1e-4), computes(slowness * 1e-4)], SIZES, budget_s=1.0, clock=clock)
    assert stable == pytest.approx({rows: 1e-4 * rows for rows in SIZES})
    assert canary == pytest.approx({rows: slowness * 1e-4 * rows for rows in SIZES})


def test_versions_are_timed_in_turns() -> None:
    ran = list[tuple[str, int]]()
    runs: list[TimedRun] = [lambda rows: ran.append(("stable", rows)), lambda rows: ran.append(("canary", rows))]
    quickest_runs(runs, SIZES, budget_s=1.0, clock=ManualClock())
    once = [(version, rows) for rows in SIZES for version in ("stable", "canary")]
    in_a_row = [one for one in once for _ in range(3)]
    assert ran == once + in_a_row * 999


@pytest.mark.parametrize(
    ("row_s", "told", "runs"), [(0.01, (1, 2, 4, 8), 28), (0.05, (1, 2), 14), (0.3, (1,), 4), (30.0, (1,), 1)]
)
def test_of_a_slow_model_small_runs_are_timed(row_s: float, told: Sequence[int], runs: int) -> None:
    clock, ran = ManualClock(), list[int]()

    def run(rows: int) -> None:
        ran.append(rows)
        clock.advance(row_s * rows)

    assert quickest_runs([run], SIZES, budget_s=0.99, clock=clock) == [
        pytest.approx({rows: row_s * rows for rows in told})
    ]
    assert len(ran) == runs


def entry(*, most_rows: int = 8, provider: str = "CPUExecutionProvider", error: Exception | None = None) -> Any:
    """A version in the registry that answers with its inputs, or fails."""

    def run(inputs: Arrays) -> Arrays:
        if error is not None:
            raise error
        return inputs

    served = SimpleNamespace(
        model="m", provider=provider, signature=SIGNATURE, reshaping=Reshaping(), max_request_rows=most_rows,
        policy=SimpleNamespace(max_batch_size=most_rows), instances=(SimpleNamespace(run=run),),
        statistics=VersionStatistics(), give_outputs_back=lambda: None,
    )  # fmt: skip
    return SimpleNamespace(served=served)


def timed(*entries: Any) -> list[list[int]]:
    """The sizes that are told of each."""
    model: Any = SimpleNamespace(ascending=lambda: [SimpleNamespace(served=None), *entries])
    time_in_turns(model)
    return [sorted(one.served.statistics.quickest) for one in entries]


def test_versions_are_told_at_the_sizes_that_all_of_them_have() -> None:
    assert timed(entry(), entry(most_rows=4), entry(provider="CUDAExecutionProvider")) == [[1, 2], [1, 2], []]
    assert timed(entry(), entry(most_rows=1)) == timed(entry(), entry(most_rows=0)) == [[1], [1]]
    assert timed(entry()) == [[]]  # nothing to compare it with
    assert timed() == []


def test_a_version_that_takes_no_zeros_is_not_told_and_serves_on() -> None:
    assert timed(entry(), entry(error=InferenceError("no zeros"))) == [[], []]
