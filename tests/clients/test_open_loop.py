"""Open loops: requests leave on their schedule, latency counts from it, and a slow client is found out."""

import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.cli import main
from inferry_client.load.answers import Expectation, WrongAnswerError, said, same
from inferry_client.load.chart import Chart, Line, draw, ticks
from inferry_client.load.compare import compare, drift
from inferry_client.load.errors import LoadError
from inferry_client.load.page import Trial, render_peak, render_run
from inferry_client.load.records import by_second, load_records, make_records, summarize
from inferry_client.load.schedule import Load, schedule
from inferry_client.load.summary import Gates, LoadSummary
from inferry_client.load.workers import processes_for
from inferry_client.results import InferResult
from inferry_proto.services import OPEN_INFERENCE
from testkit import brightness_model
from testkit.scripted_server import ScriptedServer


def _run(server: ScriptedServer, *options: str) -> int:
    return main(["load", "--server", server.address, *options])


@given(
    rates=st.lists(st.floats(1, 500), min_size=1, max_size=4),
    duration_s=st.floats(0.5, 20),
    poisson=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_schedule_is_ascending_within_its_time_and_the_same_for_the_same_seed(
    rates: list[float], duration_s: float, poisson: bool, seed: int
) -> None:
    load = Load(tuple(rates), duration_s, poisson=poisson, seed=seed)
    times = schedule(load)
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times <= duration_s + 1))
    assert abs(len(times) - load.requests) <= 6 * load.requests**0.5 + 2 * len(rates)
    np.testing.assert_array_equal(times, schedule(load))


def test_constant_arrivals_are_evenly_apart_and_poisson_arrivals_are_not() -> None:
    even = np.diff(schedule(Load((100.0,), 10, poisson=False)))
    np.testing.assert_allclose(even, 0.01)
    chance = np.diff(schedule(Load((100.0,), 100, poisson=True)))
    assert chance.std() == pytest.approx(chance.mean(), rel=0.1)  # as exponential distances have it


def test_a_stopped_server_shows_in_an_open_loop_and_hardly_in_a_closed_one(
    brightness_server: ScriptedServer, tmp_path: Path
) -> None:
    """Two of six seconds: of a schedule's requests a third wait; of those of two users, two do.

    A machine that stands still besides lets two more of the users' wait, and more of the schedule's.
    """
    go_on, came, lock = threading.Event(), itertools.count(), threading.Lock()

    def stop_once(request: Any) -> Any:
        with lock:
            number = next(came)
        if number == 60:
            threading.Timer(2.0, go_on.set).start()
        if number >= 60:
            go_on.wait(10)
        return brightness_model.infer(request)

    figures = {}
    for name, options in {"open": ["--rate", "30"], "closed": ["--users", "2"]}.items():
        go_on.clear()
        came = itertools.count()
        brightness_server.scripts["ModelInfer"] = stop_once
        target = tmp_path / f"{name}.json"
        _run(brightness_server, "--duration", "6s", *options, "--json", str(target))
        figures[name] = json.loads(target.read_text())
    waited = {
        name: sum(
            count for second in each["series"] for took_ms, count in second["times"].items() if float(took_ms) > 1000
        )
        for name, each in figures.items()
    }
    assert 2 <= waited["closed"] < 10 < waited["open"]
    assert figures["open"]["max_ms"] > 1900
    assert figures["closed"]["max_ms"] > 1900


def test_every_scheduled_request_is_sent_once_by_processes_together(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, html = tmp_path / "load.json", tmp_path / "load.html"
    options = ["--rate", "40,120,40", "--duration", "3s", "--processes", "2", "--seed", "7", "--p99-ms", "5000"]
    _run(brightness_server, *options, "--json", str(target), "--html", str(html))
    expected = len(schedule(Load((40.0, 120.0, 40.0), 3, seed=7)))
    figures = json.loads(target.read_text())
    assert figures["requests"] == figures["answered"] == expected
    assert figures["offered_per_second"] == pytest.approx(expected / 3)
    assert [second["answered"] for second in figures["series"]][1] > 80
    assert "good answers/s within 5000 ms" in capsys.readouterr().out
    assert html.read_text().count("<svg") == 2


def test_gates_that_are_not_kept_are_named_and_make_the_status_1(
    brightness_server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = brightness_server.scripts["ModelInfer"]

    def late(request: Any) -> Any:
        time.sleep(0.02)
        return slow(request)

    brightness_server.scripts["ModelInfer"] = late
    assert _run(brightness_server, "--rate", "20", "--duration", "1s", "--p99-ms", "10") == 1
    assert "at most 10 ms may be" in capsys.readouterr().err


def test_a_share_of_errors_may_be_allowed() -> None:
    summary = summarize(make_records(((n, n, n + 1, int(n == 0)) for n in range(100)), Counter()))
    assert "1.000% of the requests were refused or failed; at most 0.500% may be" in Gates(None, 0.005).broken(summary)
    assert not Gates(None, 0.01).broken(summary)


def _summary(*, lag_ms: float, p99_ms: float) -> LoadSummary:
    return LoadSummary(10, 10, 0, 0, 1.0, 1.0, 1.0, p99_ms, p99_ms, p99_ms, 10.0, send_lag_p99_ms=lag_ms)


@pytest.mark.parametrize(("lag_ms", "p99_ms", "limited"), [(4, 1, False), (6, 20, True), (6, 40, False)])
def test_a_client_that_sends_late_is_the_limit_and_says_so(lag_ms: float, p99_ms: float, limited: bool) -> None:
    broken = Gates().broken(_summary(lag_ms=lag_ms, p99_ms=p99_ms))
    assert bool(broken) is limited
    if limited:
        assert "the client was the limit: it sent one request in a hundred 6 ms late" in broken[0]


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2)), min_size=1))
def test_latency_counts_from_the_schedule_and_every_request_is_in_one_second(
    requests: list[tuple[float, float, float, int]],
) -> None:
    rows = [(at, at + lag, at + lag + took, outcome) for at, lag, took, outcome in requests]
    summary = summarize(make_records(rows, Counter()), objective_ms=500, offered=1.0, open_loop=True)
    answered = [row for row in rows if row[3] == 0]
    assert summary.max_ms == pytest.approx(max((row[2] - row[0] for row in answered), default=0) * 1e3)
    assert summary.answered + summary.refusals + summary.failures == summary.requests == len(rows)
    assert sum(second.answered for second in summary.series) == len(answered)
    assert sum(sum(second.times.values()) for second in summary.series) == len(answered)
    assert summary.goodput_per_second <= summary.requests_per_second


class _Counted(np.ndarray[Any, Any]):
    """An array that counts the elements that are computed with."""

    elements = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(each) for each in inputs]
        _Counted.elements += max(each.size for each in plain)
        result = getattr(ufunc, method)(*plain, **options)
        return result.view(_Counted) if isinstance(result, np.ndarray) else result


def test_the_figures_of_a_long_test_take_a_step_a_request_and_not_one_a_second_too() -> None:
    seconds, each = 1000, 3
    rows = [(n / each, n / each, n / each + 0.5, n % 3) for n in range(seconds * each)]
    records = make_records(rows, Counter())
    records.rows = records.rows.view(_Counted)
    series = by_second(records)
    assert [second.answered + second.refused + second.failed for second in series] == [each] * seconds
    assert 0 < _Counted.elements < 20 * len(rows)


def test_records_of_several_processes_are_put_together(tmp_path: Path) -> None:
    for number in range(3):
        make_records([(number, number, number + 1, 0)], Counter({"é full": 2})).save(tmp_path / f"{number}.records")
    records = load_records(tmp_path.glob("*.records"))
    assert sorted(records.rows["scheduled"].tolist()) == [0, 1, 2]
    assert records.errors == {"é full": 6}


@pytest.mark.slow
def test_the_peak_is_searched_on_a_server_that_holds_a_known_rate(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = brightness_server.scripts["ModelInfer"]
    one = threading.Lock()

    def one_at_a_time(request: Any) -> Any:
        with one:
            time.sleep(0.02)  # so it holds fewer than 50 a second
        return answer(request)

    brightness_server.scripts["ModelInfer"] = one_at_a_time
    html, figures = tmp_path / "peak.html", tmp_path / "peak.json"
    options = ["--p99-ms", "300", "--rate", "10", "--arrivals", "constant", "--duration", "1s", "--html", str(html)]
    _run(brightness_server, "--find-peak", *options, "--json", str(figures))
    printed = capsys.readouterr().out
    found = float(printed.rsplit("peak: ", 1)[1].split()[0])
    assert json.loads(figures.read_text())["peak"] == pytest.approx(found, abs=0.1)
    assert 5 <= found <= 70
    assert html.read_text().count("<svg") == 2


def _varying(rate: int, ms: float, seed: int) -> LoadSummary:
    generator = np.random.default_rng(seed)
    rows = [
        (second + n / rate, second + n / rate, second + n / rate + generator.gamma(4, ms / 4) / 1e3, 0)
        for second in range(12)
        for n in range(int(rate * generator.uniform(0.95, 1.05)))
    ]
    return summarize(make_records(rows, Counter()), offered=float(rate), open_loop=True)


def test_a_comparison_tells_a_difference_from_chance() -> None:
    same_as_before = {change.name: change.verdict for change in compare(_varying(200, 5, 1), _varying(200, 5, 2))}
    assert same_as_before["p50 ms"] == same_as_before["right answers/s"] == "no difference shown"
    slower = {change.name: change.verdict for change in compare(_varying(200, 5, 1), _varying(150, 8, 2))}
    assert slower["p50 ms"] == slower["p99 ms"] == slower["right answers/s"] == "worse"
    faster = {change.name: change.verdict for change in compare(_varying(150, 8, 2), _varying(200, 5, 1))}
    assert faster["p50 ms"] == faster["right answers/s"] == "better"


def test_a_soak_names_what_grew_worse_and_nothing_else() -> None:
    steady = _varying(200, 5, 1)
    slow = _varying(200, 8, 2)
    assert drift(replace(steady, series=steady.series * 2)) == []
    assert drift(replace(slow, series=slow.series * 2)) == []
    found = drift(replace(steady, series=steady.series + slow.series))
    assert {each.split(" went")[0] for each in found} == {"p50 ms", "p99 ms"}
    assert "expected at least 19" in drift(replace(steady, series=steady.series[:5]))[0]


def test_answers_are_verified_by_a_recording_and_by_folders(
    brightness_server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = str(tmp_path / "recorded.json")
    common = ["--rate", "20", "--duration", "1s", "--max-error-rate", "0"]
    _run(brightness_server, *common, "--record", recording)
    assert _run(brightness_server, *common, "--verify", recording, "--p99-ms", "5000") in (0, 1)
    assert "wrong answer" not in capsys.readouterr().err
    answer = brightness_server.scripts["ModelInfer"]

    def invert(request: Any) -> Any:
        reply: Any = answer(request)
        reply.raw_output_contents[0] = (1 - np.frombuffer(reply.raw_output_contents[0], np.float32)).tobytes()
        return reply

    brightness_server.scripts["ModelInfer"] = invert
    assert _run(brightness_server, *common, "--verify", recording) == 1
    assert "wrong answer: " in capsys.readouterr().err
    for label, level in {"dark": 0, "bright": 255, "grey": 255}.items():
        (tmp_path / "in" / label).mkdir(parents=True)
        (tmp_path / "in" / label / "one.png").write_bytes(brightness_model.picture(level))
    assert _run(brightness_server, *common, "--images", str(tmp_path / "in"), "--verify", "folders") == 1
    assert 'wrong answer: ["bright"]; expected ["grey"]' in capsys.readouterr().err
    (tmp_path / "in" / "grey").rename(tmp_path / "in" / "purple")
    assert _run(brightness_server, *common, "--images", str(tmp_path / "in"), "--verify", "folders") == 1
    assert "'purple' is no label of the model" in capsys.readouterr().err


def test_numbers_within_a_tolerance_and_labels_exactly_are_the_same_answer() -> None:
    result = InferResult("m", "1", {"y": np.array([[0.25, np.nan]], np.float32)})
    assert same(said(result), {"y": [[0.2501, float("nan")]]})
    assert not same(said(result), {"y": [[0.26, float("nan")]]})
    assert not same(said(result), {"z": [[0.25, float("nan")]]})
    assert not same(["cat"], ["dog"])
    expectation = Expectation(OPEN_INFERENCE["ModelInfer"].path, "m", answers=(1,))
    with pytest.raises(WrongAnswerError):
        expectation.read(b"")


@pytest.mark.parametrize(("rate", "cores", "processes"), [(10, 2, 1), (4000, 2, 2), (6000, 16, 3), (1e6, 8, 8)])
def test_processes_grow_with_the_rate_up_to_the_cores(rate: float, cores: int, processes: int) -> None:
    assert processes_for(rate, cores) == processes


@given(low=st.floats(0, 1e5), width=st.floats(1e-3, 1e6))
def test_ticks_cover_a_range_with_few_round_numbers(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert found[0] <= low + 1e-6 * max(1, low)
    assert found[-1] >= (low + width) * (1 - 1e-6)
    assert 2 <= len(found) <= 8


def test_pages_escape_what_servers_say_and_draw_empty_tests() -> None:
    empty = summarize(make_records([], Counter()))
    page = render_run(empty, title="<script>", broken=["<b>"])
    assert "<script>" not in page
    assert "&lt;b&gt;" in page
    searched = render_peak([Trial(5, empty, ("lost",))], title="<i>", peak=None, p99_ms=5, verdict="no <u>")
    assert "no &lt;u&gt;" in searched
    assert "<i>" not in searched
    assert draw(Chart("t", "x", "y", (Line("l", "--a", [1.0], [0.0]),))).startswith("<svg")


def test_charts_show_every_second_in_its_middle_and_no_line_for_what_did_not_happen() -> None:
    rows = [(second + 0.1, second + 0.1, second + 0.2, 0) for second in range(5)]
    page = render_run(summarize(make_records(rows, Counter()), offered=1.0, open_loop=True), title="t", broken=[])
    assert page.count("<circle") == 3 * 5  # right answers, p50 and p99
    assert ">refused</text>" not in page
    assert ">5</text>" in page
    refused = render_run(summarize(make_records([*rows, (2, 2, 2.1, 1)], Counter())), title="t", broken=[])
    assert ">refused</text>" in refused


def test_a_rate_that_was_tried_twice_is_one_point_of_the_curve_and_two_rows() -> None:
    summary = summarize(make_records([(0, 0, 0.1, 0)], Counter()), offered=5.0, open_loop=True)
    page = render_peak([Trial(5, summary, ()), Trial(5, summary, ("late",))], title="t", peak=5, p99_ms=5, verdict="")
    assert page.count("<tr><td>5.0</td>") == 2
    assert page.count("<circle") == 3 + 2


def test_a_test_too_short_to_be_compared_is_refused() -> None:
    short = summarize(make_records([(0, 0, 1, 0)], Counter()))
    with pytest.raises(LoadError, match="cannot be compared; expected at least 4"):
        compare(short, short)
