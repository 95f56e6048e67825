"""The search for the highest rate that a server holds, and what is told of it."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.load.errors import LoadError
from inferry_client.load.find_peak import client_was_limit, report_search, verdict
from inferry_client.load.page import Trial
from inferry_client.load.peak import PeakSearch
from inferry_client.load.records import make_records, summarize
from inferry_client.load.summary import Gates, read_report
from inferry_client.load.workers import most_bad


@given(capacity=st.floats(1, 50_000), start=st.floats(1, 5000))
def test_the_search_ends_near_the_highest_rate_that_is_held(capacity: float, start: float) -> None:
    search = PeakSearch(start=start)
    while (rate := search.next_rate()) is not None:
        search.note(rate, held=rate <= capacity)
    assert search.peak is not None
    assert 0.94 * capacity <= search.peak <= capacity


def test_the_search_ends_without_a_peak_where_nothing_is_held_and_believes_no_rate_held_once() -> None:
    search = PeakSearch(start=100)
    while (rate := search.next_rate()) is not None:
        search.note(rate, held=False)
    assert search.peak is None
    assert search.trials < 24
    lucky = PeakSearch(start=100)
    tried: list[float] = []
    while (rate := lucky.next_rate()) is not None:
        lucky.note(rate, held=rate <= 50 or rate not in tried)
        tried.append(rate)
        if len(tried) > 24:
            break
    assert lucky.peak is None or tried.count(lucky.peak) >= 2


@given(capacity=st.floats(50, 5000), disturbed=st.integers(0, 15))
def test_a_trial_that_was_disturbed_does_not_halve_the_peak(capacity: float, disturbed: int) -> None:
    search = PeakSearch(start=100)
    while (rate := search.next_rate()) is not None:
        search.note(rate, held=rate <= capacity and search.trials != disturbed)
    assert search.peak is not None
    assert 0.9 * capacity <= search.peak <= capacity


@given(capacity=st.floats(50, 5000), disturbed=st.sets(st.integers(0, 40)))
def test_trials_that_are_disturbed_now_and_then_do_not_lower_the_peak(capacity: float, disturbed: set[int]) -> None:
    search = PeakSearch(start=100)
    while (rate := search.next_rate()) is not None:
        lost = search.trials in disturbed and search.trials - 1 not in disturbed
        search.note(rate, held=rate <= capacity and not lost)
    assert search.peak is not None
    assert 0.9 * capacity <= search.peak <= capacity


@given(capacity=st.floats(50, 5000), late=st.sets(st.integers(0, 30)))
def test_a_trial_is_made_again_where_the_client_sent_late(capacity: float, late: set[int]) -> None:
    search = PeakSearch(start=100)
    in_a_row = 0
    while (rate := search.next_rate()) is not None:
        spoilt = search.trials in late and in_a_row < 2
        in_a_row = in_a_row + 1 if spoilt else 0
        search.note(rate, held=rate <= capacity and not spoilt, spoilt=spoilt)
        assert search.exhausted or not spoilt or search.next_rate() == rate
    assert search.exhausted or 0.94 * capacity <= (search.peak or 0.0) <= capacity


def test_a_rate_that_the_client_never_sends_in_time_is_not_held() -> None:
    search = PeakSearch(start=100)
    while (rate := search.next_rate()) is not None:
        search.note(rate, held=rate <= 1000, spoilt=rate > 1000)
    assert 940 <= (search.peak or 0.0) <= 1000


def _trial(rate: float, *, lag_ms: float, took_ms: float, refused: bool = False, objective_ms: float = 15) -> Trial:
    """A trial whose requests all left so late and took so long; the last one may be refused."""
    rows = [(n, n + lag_ms / 1e3, n + (lag_ms + took_ms) / 1e3, int(refused and n == 9)) for n in range(10)]
    summary = summarize(make_records(rows, Counter()), objective_ms=objective_ms, offered=rate, open_loop=True)
    return Trial(rate, summary, tuple(Gates(objective_ms).broken(summary, client=False)))


@pytest.mark.parametrize(
    ("lost", "client"),
    [
        (_trial(120, lag_ms=8, took_ms=10), True),
        (_trial(120, lag_ms=8, took_ms=16), False),
        (_trial(120, lag_ms=8, took_ms=10, refused=True), False),
        (_trial(120, lag_ms=1, took_ms=16), False),
    ],
)
def test_the_client_is_the_limit_where_the_server_would_have_held_the_objective(lost: Trial, client: bool) -> None:
    gates, held = Gates(15), _trial(100, lag_ms=1, took_ms=9)
    assert lost.broken
    assert gates.broken_by_client(lost.summary) is client
    assert client_was_limit([held, lost], gates, peak=100) is client
    far_above = _trial(200, lag_ms=8, took_ms=10)
    assert client_was_limit([held, lost, far_above], gates, peak=100) is client
    again = _trial(120, lag_ms=1, took_ms=16)
    assert not client_was_limit([held, lost, again], gates, peak=100)
    assert not client_was_limit([held], gates, peak=100)


@given(
    requests=st.integers(10, 2000),
    sent=st.floats(0.1, 1),
    failed=st.floats(0, 1),
    max_error_rate=st.sampled_from([0.0, 0.001, 0.2]),
)
def test_a_trial_that_a_process_gave_up_is_not_held(
    requests: int, sent: float, failed: float, max_error_rate: float
) -> None:
    bad = most_bad(requests, 0.01 + max_error_rate) + 1
    count = max(bad, round(sent * requests))
    failures = round(failed * bad)
    rows = [(n / 99, n / 99, n / 99 + (0.02 if n < bad else 0.001), int(n < failures)) for n in range(count)]
    summary = summarize(make_records(rows, Counter()), open_loop=True)
    assert count > requests or Gates(15, max_error_rate).broken(summary)


def test_a_search_without_a_peak_says_whether_nothing_was_held_or_nothing_twice() -> None:
    never = PeakSearch(start=2.0)
    while (rate := never.next_rate()) is not None:
        never.note(rate, held=False)
    assert verdict(never, 5) == ("no rate was held with p99 within 5 ms; the lowest that was tried is 0.5 requests/s")
    once, tried = PeakSearch(start=1.0), set[float]()
    while (rate := once.next_rate()) is not None:
        once.note(rate, held=rate not in tried)
        tried.add(rate)
    assert once.exhausted
    assert verdict(once, 5) == (
        "no rate was held twice with p99 within 5 ms in 40 trials; 1000000.0 requests/s was held, but not twice; "
        "longer ones (--duration) vary less"
    )
    broken_off = PeakSearch(start=100.0)
    broken_off.note(100.0, held=True)
    assert verdict(broken_off, 5) == (
        "the search was broken off after 1 trials; 100.0 requests/s was held, but not twice"
    )


def test_the_highest_rate_that_may_be_tried_is_no_peak_of_the_server() -> None:
    search = PeakSearch(start=100.0, highest=400.0)
    while (rate := search.next_rate()) is not None:
        search.note(rate, held=True)
    assert verdict(search, 5) == "peak: 400.0 requests/s with p99 within 5 ms; no higher rate is tried"


def test_the_figures_of_a_search_are_its_peak_its_best_trial_and_its_curve() -> None:
    one, two = (
        summarize(make_records([(n, n, n + took_s, 0) for n in range(6)], Counter()), offered=1.0, open_loop=True)
        for took_s in (0.1, 0.2)
    )
    trials = [Trial(5, one, ()), Trial(10, two, ("late",)), Trial(5, two, ())]
    text = report_search(trials, peak=5, p99_ms=300)
    document = json.loads(text)
    assert (document["peak"], document["objective_ms"]) == (5, 300)
    told = [(trial["rate"], trial["held"], trial["broken"], trial["p50_ms"]) for trial in document["trials"]]
    assert told == [
        (5, True, [], pytest.approx(100)),
        (10, False, ["late"], pytest.approx(200)),
        (5, True, [], pytest.approx(200)),
    ]
    best = read_report(text, name="peak.json")
    assert best.series == two.series
    assert best.p50_ms == two.p50_ms
    without = report_search(trials[1:2], peak=None, p99_ms=300)
    assert [trial["rate"] for trial in json.loads(without)["trials"]] == [10]
    with pytest.raises(LoadError, match=r"peak\.json is of a search that found no peak"):
        read_report(without, name="peak.json")
