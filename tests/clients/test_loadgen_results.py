"""What is made of LoadGen's summaries."""

import pytest

from bench.loadgen_results import Result, SummaryError, peaks_table, read_summary, table

SERVER = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 1057.47
Result is : {verdict}
  Performance constraints satisfied : {satisfied}
  Min duration satisfied : Yes
90.00 percentile latency (ns)   : 9000000
99.00 percentile latency (ns)   : 14500000
"""


def test_a_valid_summary_gives_its_figure() -> None:
    result = read_summary(SERVER.format(verdict="VALID", satisfied="Yes"), failed=0)
    assert result == Result("Server", 1057.47, "samples/s", valid=True, p99_ms=14.5)


def test_an_invalid_summary_says_why_and_a_refusal_makes_any_invalid() -> None:
    result = read_summary(SERVER.format(verdict="INVALID", satisfied="NO"), failed=0)
    assert result.reasons == ("LoadGen: Performance constraints satisfied : NO",)
    refused = read_summary(SERVER.format(verdict="VALID", satisfied="Yes"), failed=3)
    assert not refused.valid
    assert refused.reasons == ("3 requests were refused or failed",)


@pytest.mark.parametrize("text", ["", "Scenario : Other\n", "Scenario : Offline\nResult is : VALID\n"])
def test_what_is_no_summary_is_refused(text: str) -> None:
    with pytest.raises(SummaryError):
        read_summary(text, failed=0)


def test_the_table_states_shares_and_accuracy() -> None:
    results = [
        Result("Offline", 1000, "samples/s", True),
        Result("Server", 800, "samples/s", False, ("slow",), 20.0, 0.4),
    ]
    printed = table(results, accuracy=(355, 356, 360))
    assert "| Server ÷ Offline | 0.80 |" in printed
    assert "INVALID: slow" in printed
    assert "| client beside the server | 0.40 cores |" in printed
    assert "355 of 360 right, Keras 356 | | NOT EQUAL" in printed


def test_peaks_of_two_generators_are_compared_by_the_median_of_their_ratios() -> None:
    agreed = peaks_table([(1000, 900), (2000, 2100), (1500, 1450)], latency_ms=15)
    assert "| 1 | 1,000 | 900 | 0.90 |" in agreed
    assert agreed.endswith("| medians: they agree within 10% | 1,500 | 1,450 | 0.97 (0.90 to 1.05) |")
    assert "they DISAGREE within 10% | 1,000 | 800 | 0.80 (0.80 to 0.80) |" in peaks_table([(1000, 800)], latency_ms=15)
