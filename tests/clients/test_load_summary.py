"""What a load test tells at its end: percentiles, the summary and its report, and whether it passed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.load.errors import LoadError
from inferry_client.load.records import make_records, summarize
from inferry_client.load.summary import (
    Gates,
    LoadSummary,
    bucket_ms,
    describe,
    percentile,
    read_report,
    report,
)

SUMMARY = LoadSummary(1000, 990, 8, 2, 456.78, 1.234, 40.0, 56.7, 60.0, 61.0, errors=("8 x full",))


@given(st.lists(st.floats(0.1, 100), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_time_that_enough_do_not_exceed(times: list[float], share: float) -> None:
    found = percentile(Counter(times), share)
    assert sum(time <= found for time in times) >= len(times) * share - 1e-6
    assert sum(time < found for time in times) < len(times) * share


@given(st.floats(0.001, 1e6))
def test_buckets_keep_three_digits(response_time_ms: float) -> None:
    assert bucket_ms(response_time_ms) == pytest.approx(response_time_ms, rel=0.005)


def test_a_summary_is_kept_and_prints() -> None:
    assert read_report(report(SUMMARY), name="a.json") == SUMMARY
    assert describe(SUMMARY) == ("1000 requests, 2 failures, 8 refused, 456.8 requests/s, p50 1.23 ms, p99 56.7 ms")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"requests": 1}', '{"series": [1]}'])
def test_what_is_no_report_is_named(text: str) -> None:
    with pytest.raises(LoadError, match=r"a\.json is no report of `inferry load --json`"):
        read_report(text, name="a.json")


@pytest.mark.parametrize(
    ("rows", "passed"), [("aaa", True), ("aar", False), ("aaf", False), ("", False), ("rrr", False)]
)
def test_a_test_passes_only_with_right_answers_and_nothing_else(rows: str, passed: bool) -> None:
    outcomes = {"a": 0, "r": 1, "f": 2}
    records = make_records(((n, n, n + 0.5, outcomes[kind]) for n, kind in enumerate(rows)), Counter())
    summary = summarize(records)
    assert (not Gates().broken(summary)) is passed
    assert summary.answered == rows.count("a")
    assert (summary.refusals, summary.failures) == (rows.count("r"), rows.count("f"))
    assert summary.p99_ms == (500 if summary.answered else 0)
