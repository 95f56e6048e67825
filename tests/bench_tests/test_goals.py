from dataclasses import replace
from statistics import median

import pytest

from bench.goals import Goal, before_goals, judge
from bench.overloads import DEVICE, NETWORK
from bench.report import summarize
from bench.samples import Overload, Sample, Spread
from bench.workloads import (
    BATCH,
    BATCHES,
    BEFORE,
    BEFORE_INT8,
    INFERRY,
    INT8,
    OBJECTIVE,
    SCRIPTED,
    STREAM,
    TRITON,
    UNBATCHED,
    single,
)

SAMPLE = Sample(images_per_s=1_000, cpu_us=400, rows=8, beyond_us=100, p50_ms=1.0, p99_ms=2.0)
OVERLOAD = Overload(
    peak_per_s=800,
    offered_per_s=2_400,
    useful_per_s=790,
    late_per_s=3,
    accepted_p99_ms=90,
    rows=30,
    expired=0,
    growth_mb=1,
    behind_ms=2,
)


def measured(*, triton: bool = True) -> dict[tuple[str, str], list[Sample]]:
    busy, alone = single("perf_analyzer", 32), single("perf_analyzer", 1)
    samples = {
        (busy, INFERRY): [SAMPLE, replace(SAMPLE, images_per_s=500)],
        (busy, INT8): [replace(SAMPLE, images_per_s=2_000), replace(SAMPLE, images_per_s=1_000)],
        (busy, UNBATCHED): [replace(SAMPLE, images_per_s=800), replace(SAMPLE, images_per_s=400)],
        (alone, INFERRY): [SAMPLE, SAMPLE],
        (BATCHES, INFERRY): [SAMPLE, SAMPLE],
        (STREAM, INFERRY): [SAMPLE, SAMPLE],
    }
    return samples | ({(busy, TRITON): [replace(SAMPLE, images_per_s=750)] * 2} if triton else {})


OVERLOADS = {(NETWORK, OBJECTIVE): [replace(OVERLOAD, useful_per_s=500), replace(OVERLOAD, useful_per_s=550)]}
BARE_SAMPLES = {BATCH: replace(SAMPLE, cpu_us=390, images_per_s=1_100), 1: replace(SAMPLE, p50_ms=0.7)}
BESIDE = {key: [BARE_SAMPLES] * 2 for key in ((single("perf_analyzer", 1), INFERRY), (BATCHES, INFERRY))}


def goals(*, triton: bool = True, overload: Overload = OVERLOAD) -> dict[str, Goal]:
    judged = judge(
        measured(triton=triton), BESIDE, OVERLOADS | {(DEVICE, SCRIPTED): [overload]}, start_s=[1.0, 1.2], idle=[0.001]
    )
    return {goal.name: goal for goal in judged}


def test_throughput_is_compared_round_by_round() -> None:
    judged = goals()["1 image, 32 at a time: images/s / Triton"]
    assert judged.measured == Spread(1.0, 500 / 750, 1_000 / 750)
    assert judged.verdict == "missed"
    assert goals()["the same in int8 / Triton in float32"].measured.median == 2.0


def test_without_triton_nothing_is_said_of_it() -> None:
    assert not [name for name in goals(triton=False) if "Triton" in name]


def test_batching_must_win_from_eight_at_a_time_on() -> None:
    judged = goals()["32 at a time: images/s with batching / without"]
    assert (judged.must, judged.measured.median) == (1, 1.25)


def test_latency_beyond_the_model_is_in_milliseconds() -> None:
    assert goals()["1 image, 1 at a time: p50 beyond the bare session, ms"].measured.median == pytest.approx(0.3)


@pytest.mark.parametrize(("expired", "verdict"), [(0, "reached"), (1, "missed")])
def test_one_expired_request_is_one_too_many(expired: int, verdict: str) -> None:
    assert goals(overload=replace(OVERLOAD, expired=expired))["overload: expired requests computed"].verdict == verdict


@pytest.mark.parametrize(
    ("median", "at_most", "verdict"),
    [
        (0.9, False, "missed"),
        (1.2, False, "must"),
        (1.6, False, "reached"),
        (0.9, True, "reached"),
        (1.6, True, "missed"),
    ],
)
def test_a_verdict_goes_by_the_median(median: float, at_most: bool, verdict: str) -> None:
    must, should = (1.0, 1.5) if not at_most else (1.5, 1.0)
    assert Goal("speed", Spread(median, 0, 9), must, should, at_most=at_most).verdict == verdict


def test_the_report_keeps_every_round_beside_its_median() -> None:
    samples = measured()
    report = summarize(samples, {(DEVICE, SCRIPTED): [replace(OVERLOAD, expired=None)]}, [], {"rounds": 2})
    rows = {(row["workload"], row["contender"]): row for row in report["workloads"]}
    assert rows.keys() == samples.keys()
    row = rows[single("perf_analyzer", 32), INFERRY]
    assert row["images_per_s"] == {"median": 750, "least": 500, "most": 1_000}
    assert [each["images_per_s"] for each in row["rounds"]] == [1_000, 500]
    assert report["overloads"][0]["expired"] is None


def test_batches_are_compared_with_the_session_measured_just_before() -> None:
    judged = goals()
    assert judged["32 images: server CPU / model CPU"].measured.median == 400 / 390
    assert judged["32 images: images/s / bare session"].measured.median == 1_000 / 1_100


def test_the_network_under_overload_is_judged_too() -> None:
    judged = goals()["overload of the network: useful answers / peak"]
    assert (judged.measured.median, judged.verdict) == (525 / 800, "reached")


def test_another_checkout_is_compared_round_by_round_in_throughput_and_cpu() -> None:
    busy = single("perf_analyzer", 32)
    before = [replace(SAMPLE, images_per_s=900, cpu_us=500), replace(SAMPLE, images_per_s=1_000)]
    found = {
        goal.name: goal for goal in before_goals(measured() | {(busy, BEFORE): before, (busy, BEFORE_INT8): before})
    }
    assert found[f"{busy}: images/s / before"].measured == Spread(
        median(each := [1_000 / 900, 0.5]), min(each), max(each)
    )
    assert found[f"{busy}: server CPU / before"].measured.least == 0.8
    assert found[f"{busy}, int8: images/s / before"].measured.most == 2_000 / 900
    assert not before_goals(measured())


def test_the_tail_is_told_only_where_it_was_measured() -> None:
    report = summarize({("w", "c"): [replace(SAMPLE, p50_ms=2.0, p999_ms=5.0)], ("w", "d"): [SAMPLE]}, {}, [], {})
    assert [row["tail"] and row["tail"]["median"] for row in report["workloads"]] == [2.5, None]
