"""LoadGen gets queries enough for the time of a run, however fast the server."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bench.loadgen
from bench.loadgen import address_of, all_at_once, highest_server, one_after_the_other
from bench.loadgen_results import Result
from testkit import onnx_models

_SUMMARY = """\
Scenario : {scenario}
Result is : {verdict}
  Min duration satisfied : {satisfied}
90.0th percentile latency (ns) : {latency}
99.0th percentile latency (ns) : {latency}
Min latency (ns)                : {least}
Samples per second: {rate}
"""


TARGET: Any = SimpleNamespace(images=[0], failed=0, issue=None, flush=None)


class PlayedLoadGen:
    """Sends as many queries as it was told to prepare.

    Args:
        latency_s: of the server, where a query waits for the one before.
        rates: of the server in one run after the other, where all are sent at once.
    """

    TestScenario = SimpleNamespace(SingleStream="SingleStream", MultiStream="MultiStream", Offline="Offline")
    TestMode = SimpleNamespace(PerformanceOnly=0, AccuracyOnly=1)
    TestSettings = LogOutputSettings = LogSettings = SimpleNamespace

    def __init__(self, latency_s: float = 1.0, rates: Sequence[float] = ()) -> None:
        self.latency_s = latency_s
        self.rates = list(rates)

    def StartTestWithLogSettings(self, sut: Any, library: Any, settings: Any, log: Any) -> None:  # noqa: N802
        seconds = settings.min_duration_ms / 1e3
        rate = self.rates.pop(0) if settings.scenario == "Offline" else 0.0
        if settings.scenario == "Offline":
            enough = 1.1 * settings.offline_expected_qps * seconds / rate >= seconds
        else:
            name = "single_stream" if settings.scenario == "SingleStream" else "multi_stream"
            expected_s = getattr(settings, f"{name}_expected_latency_ns") / 1e9
            prepared = max(settings.min_query_count, math.ceil(seconds / expected_s))
            enough = prepared * self.latency_s * 1.1 >= seconds  # the mean is above the least
        (Path(log.log_output.outdir) / "mlperf_log_summary.txt").write_text(
            _SUMMARY.format(
                scenario=settings.scenario,
                verdict="VALID" if enough else "INVALID",
                satisfied="Yes" if enough else "NO",
                latency=self.latency_s * 2e9,
                least=self.latency_s * 1e9,
                rate=rate,
            )
        )

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream"])
@pytest.mark.parametrize("latency_s", [50e-6, 0.3e-3, 5e-3, 2.0])
@pytest.mark.parametrize("seconds", [1.0, 8.0, 600.0])
def test_queries_last_for_the_time_of_a_run(scenario: str, latency_s: float, seconds: float) -> None:
    assert one_after_the_other(PlayedLoadGen(latency_s), TARGET, scenario, seconds=seconds).valid


def test_samples_sent_at_once_last_for_their_time_though_a_run_was_disturbed() -> None:
    assert all_at_once(PlayedLoadGen(rates=[1000, 1050]), TARGET, seconds=8).valid
    disturbed = PlayedLoadGen(rates=[1000, 2000, 2100, 1])
    assert all_at_once(disturbed, TARGET, seconds=8).figure == 2100
    assert disturbed.rates == [1]
    never = PlayedLoadGen(rates=[1000, 2000, 4000, 8000, 1])
    assert not all_at_once(never, TARGET, seconds=8).valid
    assert never.rates == [1]


def test_a_share_is_given_up_after_two_runs_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 0.90 nothing is valid, at 0.85 the first trial and the first long run are disturbed."""
    tried: list[tuple[float, float]] = []

    def run(_: Any, __: Any, share: float, *, offline: float, seconds: float) -> Result:
        tried.append((share, seconds))
        return Result("Server", share * offline, "samples/s", valid=share < 0.9 and tried.count(tried[-1]) == 2)

    monkeypatch.setattr(bench.loadgen, "_server_run", run)
    assert highest_server(None, TARGET, 1000.0, seconds=60).figure == 850
    assert tried == [(0.9, 3.0)] * 2 + [(0.85, 3.0)] * 2 + [(0.85, 60.0)] * 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_server_that_is_apart_shares_no_core_with_who_sends(tmp_path: Path) -> None:
    own = os.sched_getaffinity(0)
    onnx_models.save_doubler(tmp_path / "models")
    with address_of(None, tmp_path, apart=True) as (address, server):
        assert address.startswith("127.0.0.1:")
        assert server is not None
        servers = {core for thread in server.threads() for core in os.sched_getaffinity(thread.id)}
        assert servers
        assert servers | os.sched_getaffinity(0) == own
        assert not servers & os.sched_getaffinity(0)
    assert os.sched_getaffinity(0) == own
