"""The search for the highest rate that a server stands, against servers that are only said to answer."""

from collections.abc import Callable

import pytest

from bench import open_peak
from bench.load_generator import Job, LoadResult
from bench.open_peak import find_open_peak
from bench.perf_analyzer import LoadFailedError

JOB = Job(1, "/", "", 1.0)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return stands(monkeypatch, lambda rate, _: rate <= 1000)


def stands(monkeypatch: pytest.MonkeyPatch, good: Callable[[float, int], bool]) -> list[float]:
    """Rates that were tried, of a server whose answers are good by rate and how many were tried before."""
    tried: list[float] = []

    def generate(job: Job) -> LoadResult:
        assert job.repeats_s == job.seconds > 0
        p99_ms = 3.0 if good(job.rate, len(tried)) else 50.0
        tried.append(job.rate)
        return LoadResult(sent=10, answered=10, useful=10, wall_s=1.0, p50_ms=1.0, p99_ms=p99_ms, p999_ms=9.0)

    monkeypatch.setattr(open_peak, "generate", generate)
    return tried


def test_the_peak_is_the_highest_rate_that_stands_to_a_tenth(rates: list[float]) -> None:
    peak = find_open_peak(JOB, 6000)
    assert 900 <= peak.rate <= 1000
    assert peak.rate in rates
    assert peak.p99_ms == 3.0
    assert len(rates) <= 12


def test_other_work_that_spoils_one_try_does_not_lower_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    stands(monkeypatch, lambda rate, before: rate <= 1000 and before % 2 == 1)
    assert 900 <= find_open_peak(JOB, 6000).rate <= 1000


def test_a_server_that_stands_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stands(monkeypatch, lambda *_: False)
    with pytest.raises(LoadFailedError, match="p99 is above 15 ms at 375 requests a second"):
        find_open_peak(JOB, 6000)


def test_a_rate_at_which_requests_are_refused_does_not_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = LoadResult(sent=10, answered=9, useful=9, wall_s=1.0, p50_ms=1.0, p99_ms=1.0, p999_ms=1.0)
    monkeypatch.setattr(open_peak, "generate", lambda _: refused)
    with pytest.raises(LoadFailedError):
        find_open_peak(JOB, 6000)
