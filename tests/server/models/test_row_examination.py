"""Rows are examined for a bounded time, in batches of bounded size, and the verdict says how large those were."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_server.errors import InferenceError
from inferry_server.models import row_choice
from inferry_server.models.row_choice import MOST_BYTES
from inferry_server.models.row_independence import Finding, Verdict
from inferry_server.runtime.limited_runs import RunTooLongError
from testkit.row_examination import Array, Clock, judge


@given(st.floats(0.0, 0.1), st.sampled_from([2, 32, 300]))
@settings(max_examples=20, deadline=None)
def test_the_examination_takes_six_budgets_or_forty_rows_however_slow_a_row_is(row_s: float, largest: int) -> None:
    clock = Clock(row_s)
    assert judge(lambda x: x, clock=clock, largest=largest, shape=(-1, 2)).verdict is Verdict.INDEPENDENT
    assert clock.now <= max(6.0, 1.0 + 40 * row_s)


def test_rows_that_a_model_would_compute_for_ever_show_nothing_and_are_asked_for_once() -> None:
    clock, asked = Clock(), 0

    def model(x: Array) -> Array:
        nonlocal asked
        if (x > 1 << 20).any():
            asked += 1
            clock.now += 6
            raise RunTooLongError("it loops as often as it is told")
        return x * 2

    assert judge(model, datatype="INT64", clock=clock).verdict is Verdict.INDEPENDENT
    assert asked == 1


@pytest.mark.parametrize(("row_s", "least", "most"), [(0.0, 32, 32), (0.05, 32, 32), (0.2, 3, 16), (0.9, 2, 2)])
def test_the_verdict_says_how_large_the_batches_were(row_s: float, least: int, most: int) -> None:
    sizes: list[int] = []

    def model(x: Array) -> Array:
        sizes.append(len(x))
        return x

    finding = judge(model, clock=Clock(row_s))
    assert finding.verdict is Verdict.INDEPENDENT
    assert least <= finding.tried <= most
    assert finding.tried == max(sizes)


def test_one_slow_run_on_a_busy_machine_makes_no_batch_smaller() -> None:
    clock = Clock()
    runs = iter(range(1000))

    def model(x: Array) -> Array:
        clock.now += 0.4 if next(runs) == 3 else 0.0001  # the last one alone before batches are made
        return x

    assert judge(model, clock=clock).tried == 32


def test_a_slow_model_that_cannot_compute_large_batches_is_found() -> None:
    def model(x: Array) -> Array:
        if len(x) > 4:
            raise InferenceError("too many rows")
        return x

    assert judge(model, clock=Clock(0.05)).verdict is Verdict.MIXED


def test_a_model_whose_row_takes_longer_than_the_budget_is_not_examined() -> None:
    clock = Clock(30.0)
    finding = judge(lambda x: x, clock=clock)
    assert finding == Finding(Verdict.UNKNOWN, "one row takes longer than the 1 s for all of it")
    assert clock.rows == 1


@pytest.mark.parametrize("length", [1 << 40, 1 << 62, MOST_BYTES // 4])
def test_rows_too_large_to_make_up_are_not_made_up(length: int) -> None:
    def run(x: Array) -> Array:
        raise AssertionError(x.shape)

    finding = judge(run, shape=(-1, length))
    assert finding.verdict is Verdict.UNKNOWN
    assert f"a row takes {4 * length} bytes" in finding.reason


def test_batches_that_are_made_up_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_choice, "MOST_BYTES", 1 << 16)
    seen: list[int] = []

    def run(x: Array) -> Array:
        seen.append(x.nbytes)
        return x

    assert judge(run, shape=(-1, 1 << 10), largest=32).verdict is Verdict.INDEPENDENT
    assert max(seen) == 1 << 16
