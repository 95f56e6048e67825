"""Full batches that are computed at the same time, one on each core."""

import itertools
import logging
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import InferenceRequest
from inferry_server.errors import InferenceError
from inferry_server.executing.core_turns import ComputeGate, OpenSeat
from inferry_server.models import loading, parallel_runs
from inferry_server.models.checks import GoldenCheck
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.model_settings import ModelSettings
from inferry_server.models.parallel_runs import parallel_instance
from inferry_server.models.repository import VersionFolder
from inferry_server.models.version import ServedVersion
from inferry_server.models.version_plan import VersionPlan
from inferry_server.runtime.instance import CpuInstance
from inferry_server.runtime.instances import Devices
from inferry_server.runtime.parallel import ParallelInstance
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import OnnxSession, load_session
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.batchers import Reply
from testkit.simulation import known_device

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=64, max_queue_size=64, max_queue_bytes=1 << 20)
POISON = 100.0


@given(st.integers(1, 40), st.integers(2, 40), st.integers(1, 4), st.data())
def test_a_batch_is_cut_into_even_runs_of_no_more_rows_than_allowed_and_none_without(
    size: int, count: int, each: int, data: st.DataObject
) -> None:
    one = ParallelInstance(Session(), Session(), run_rows=size, parallel_runs=count, runs_each=each)  # type: ignore[arg-type]
    rows = data.draw(st.integers(1, one.most_rows) | st.integers(1, min(count, one.most_rows)))
    runs = one.run_sizes(rows)
    assert sum(runs) == rows
    assert all(0 < run <= size for run in runs)
    assert max(runs) - min(runs) <= 1
    one.close()
    needed = math.ceil(rows / (size * count)) * count  # on all cores alike
    assert len(runs) == (1 if rows <= size else min(rows, needed))


class Session:
    """`y = 2 x`. Runs of one row each meet others: alone, they would wait for ever."""

    def __init__(self, parties: int = 1) -> None:
        self.meeting = threading.Barrier(parties)
        self.sizes: list[int] = []

    def run(self, inputs: Arrays) -> Arrays:
        self.sizes.append(len(inputs["x"]))
        self.meeting.wait(30)
        if POISON in inputs["x"]:
            raise InferenceError("poisoned")
        return {"y": 2 * inputs["x"]}

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass

    batch_limit = None


def parallel(whole: Session, single: Session) -> ParallelInstance:
    return ParallelInstance(whole, single, run_rows=4, parallel_runs=3)  # type: ignore[arg-type]  # it runs, and no more


@pytest.mark.parametrize("rows", range(1, 13))
def test_every_row_is_answered_in_its_place_and_large_batches_run_at_the_same_time(rows: int) -> None:
    whole, single = Session(), Session(parties=3)
    one = parallel(whole, single)
    x = np.arange(rows, dtype=np.float32)
    np.testing.assert_array_equal(one.run({"x": x})["y"], 2 * x)
    is_large = rows > 4
    assert whole.sizes == ([] if is_large else [rows])
    assert sorted(single.sizes) == (sorted(one.run_sizes(rows)) if is_large else [])
    one.close()


@pytest.mark.parametrize("rows", [5, 13, 14, 24])
def test_where_a_core_computes_several_runs_every_row_is_answered_in_its_place(rows: int) -> None:
    single = Session()
    one = ParallelInstance(Session(), single, run_rows=4, parallel_runs=3, runs_each=2)  # type: ignore[arg-type]
    x = np.arange(rows, dtype=np.float32)
    np.testing.assert_array_equal(one.run({"x": x})["y"], 2 * x)
    assert sorted(single.sizes) == sorted(one.run_sizes(rows))
    one.close()


@pytest.mark.parametrize("guilty", range(9))
def test_a_part_that_fails_fails_the_batch_when_no_other_part_runs_any_more(guilty: int) -> None:
    single = Session(parties=3)
    one = parallel(Session(), single)
    x = np.zeros(9, np.float32)
    x[guilty] = POISON
    with pytest.raises(InferenceError, match="poisoned"):
        one.run({"x": x})
    x[guilty] = 1
    assert one.run({"x": x})["y"][guilty] == 2  # all three met again: none was left behind
    one.close()


def test_what_is_closed_waits_for_no_threads_that_have_ended() -> None:
    whole = Session()
    one = parallel(whole, Session(parties=3))
    one.close()
    one.run({"x": np.zeros(9, np.float32)})  # of a real session that is closed: an error
    assert whole.sizes == [9]


def test_no_part_reads_the_inputs_any_more_when_another_has_failed() -> None:
    failed = threading.Event()
    ended: list[int] = []

    class FirstFails(Session):
        def run(self, inputs: Arrays) -> Arrays:
            if threading.current_thread() is caller:
                failed.set()
                raise InferenceError("the first part")
            failed.wait(30)
            ended.append(len(inputs["x"]))
            return inputs

    caller = threading.current_thread()
    with pytest.raises(InferenceError, match="the first part"):
        parallel(Session(), FirstFails()).run({"x": np.zeros(12, np.float32)})
    assert ended == [4, 4]


def plan(repository: Path, *, width: int = 3) -> tuple[VersionPlan, CpuInstance]:
    onnx_models.save_dense(repository, width=width)
    folder = VersionFolder("dense", 1, repository / "dense" / "1")
    session = load_session(folder.path / "model.onnx", providers=(CPU,), intra_op_num_threads=2)
    made = VersionPlan(folder, ModelSettings(), None, session.signature, batched=True, policy=POLICY, devices=Devices())
    return made, CpuInstance(session)


def played(slowdown: float) -> Callable[[], float]:
    """A clock by which full batches take 5 ms each, and two in parallel twice that and so much more."""
    runs = [0.005, 2 * 0.005 * slowdown]
    noise = [9.0, 1.0, 3.0, 1.0]  # the first time says nothing, and of the others the shortest counts
    took = (step for factor in noise for run_s in runs for step in (factor * run_s, 0.0))
    return itertools.accumulate(took, initial=0.0).__next__


def decide(
    before: VersionPlan, instance: CpuInstance, latency: LatencyModel, *, threads: int = 2, slowdown: float = 0.8
) -> ParallelInstance | None:
    return parallel_instance(before, instance, latency, threads=threads, seat=OpenSeat(), clock=played(slowdown))


def test_a_model_whose_full_batches_take_some_milliseconds_is_run_in_parallel(tmp_path: Path) -> None:
    before, instance = plan(tmp_path)
    latency = known_device(POLICY, 0.001, 0.001)
    one = decide(before, instance, latency)
    assert one is not None
    assert (one.parallel_runs, one.most_rows) == (2, 8)
    assert latency.batch_s(8) < 0.009  # it was told how long both take together
    x = np.eye(8, 3, dtype=np.float32)
    np.testing.assert_array_equal(one.run({"x": x})["y"], x)
    one.close()


@pytest.mark.parametrize(
    ("threads", "batch_s", "batched"),
    [(1, 0.005, True), (2, 0.0001, True), (2, 0.06, True), (2, 0.0, True), (2, 0.005, False)],
    ids=["one core", "too short", "too long", "never warmed", "no rows"],
)
def test_others_are_not(tmp_path: Path, threads: int, batch_s: float, batched: bool) -> None:
    before, instance = plan(tmp_path)
    before = replace(before, batched=batched)
    latency = known_device(POLICY, 0.0, batch_s / POLICY.max_batch_size) if batch_s else LatencyModel(4)
    assert decide(before, instance, latency, threads=threads) is None


def test_of_short_runs_each_core_computes_several_and_only_bulk_work_has_such_batches(tmp_path: Path) -> None:
    before, instance = plan(tmp_path)
    one = decide(before, instance, known_device(POLICY, 0.0001, 0.00005))  # 0.3 ms a run
    assert one is not None
    assert (one.parallel_runs, one.runs_each, one.most_rows) == (2, 4, 32)
    x = np.eye(32, 3, dtype=np.float32)
    np.testing.assert_array_equal(one.run({"x": x})["y"], x)
    limits = loading._batching(POLICY, one)
    assert (limits.max_batch_size, limits.small_batch_size, limits.bulk_batch_size) == (4, None, 32)
    one.close()


def test_neither_is_one_whose_outputs_may_have_any_size(tmp_path: Path) -> None:
    before, instance = plan(tmp_path)
    free = replace(before.signature.outputs[0], shape=(-1, -1))
    before = replace(before, signature=replace(before.signature, outputs=(free,)))
    latency = known_device(POLICY, 0.001, 0.001)
    assert decide(before, instance, latency) is None


@pytest.mark.parametrize(("slowdown", "expected"), [(1.24, True), (1.26, False)])
def test_what_is_clearly_slower_in_parallel_is_not(tmp_path: Path, slowdown: float, expected: bool) -> None:
    before, instance = plan(tmp_path)
    latency = known_device(POLICY, 0.001, 0.001)
    assert (decide(before, instance, latency, slowdown=slowdown) is not None) == expected


def test_what_is_given_up_keeps_neither_its_threads_nor_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, instance = plan(tmp_path)
    opened = []

    def remember(*arguments: Any, **options: Any) -> OnnxSession:
        opened.append(load_session(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(parallel_runs, "load_session", remember)
    running = threading.active_count()
    assert decide(before, instance, known_device(POLICY, 0.001, 0.001), slowdown=1.26) is None
    assert threading.active_count() == running
    x = {"x": np.eye(3, dtype=np.float32)}
    with pytest.raises(InferenceError):
        opened[0].run(x)
    np.testing.assert_array_equal(instance.run(x)["y"], x["x"])


def test_what_is_measured_has_the_cores_to_itself(tmp_path: Path) -> None:
    before, instance = plan(tmp_path)
    gate = ComputeGate(2)
    neighbour, seat = gate.seat("neighbour", 1), gate.seat("dense", 2)
    clock, held = played(0.8), list[bool]()

    def now() -> float:
        held.append(not neighbour.try_acquire())  # they cannot be had while a run is measured
        neighbour.leave()
        return clock()

    latency = known_device(POLICY, 0.001, 0.001)
    assert parallel_instance(before, instance, latency, threads=2, seat=seat, clock=now) is not None
    assert all(held)
    assert neighbour.try_acquire()  # and can be had afterwards


def test_a_model_that_fails_on_one_core_is_served_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before, instance = plan(tmp_path)
    before.model_path.write_bytes(b"no model")
    with caplog.at_level(logging.WARNING):
        assert decide(before, instance, known_device(POLICY, 0.001, 0.001)) is None
    assert "served without parallel runs" in caplog.text


def test_a_second_session_must_answer_the_golden_samples_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, instance = plan(tmp_path)
    sample = {"x": np.ones((1, 3), np.float32)}
    golden = GoldenCheck(tmp_path, ((sample, {"y": np.ones((1, 3), np.float32)}),), tolerance=0.0, provider=CPU)
    monkeypatch.setattr(VersionPlan, "golden_check", lambda *_: golden)
    latency = known_device(POLICY, 0.001, 0.001)
    assert decide(before, instance, latency, slowdown=1.0) is not None
    onnx_models.save_doubler(tmp_path)
    doubler = load_session(tmp_path / "doubler" / "1" / "model.onnx", providers=(CPU,), intra_op_num_threads=1)
    monkeypatch.setattr(parallel_runs, "load_session", lambda *_, **__: doubler)
    assert decide(before, instance, latency, slowdown=1.0) is None
    assert "not the model that was verified" in caplog.text


def load(repository: Path, *, allowed: bool) -> ServedVersion:
    onnx_models.save_dense(repository, layers=8)
    policy = BatchingPolicy(max_batch_size=32, max_request_rows=64, max_queue_size=64, max_queue_bytes=1 << 20)
    options = LoadOptions((CPU,), 2, 1, policy, ServerMetrics(), parallel_runs=allowed)
    return load_version(VersionFolder("dense", 1, repository / "dense" / "1"), options)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_served_model_answers_and_counts_runs_of_no_more_rows_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    for limit in ("_MOST_SLOWDOWN", "_LONGEST_S"):  # what else the machine does shall decide nothing
        monkeypatch.setattr(parallel_runs, limit, math.inf)
    served = load(tmp_path, allowed=allowed)
    x = np.random.default_rng(0).random((64, 1024), np.float32)
    reply = Reply()
    served.batcher.submit(InferenceRequest({"x": x}, 64, reply))
    outputs = reply.outcome()
    assert not isinstance(outputs, Exception)
    np.testing.assert_array_equal(outputs["y"], x)
    assert served.close(10)
    assert served.parallel_runs == (2 if allowed else 1)
    assert served.policy.max_batch_size == 32  # rows of one run, whatever a batch has
    counted = served.statistics.message("dense", "1")
    assert [(each.batch_size, each.compute_infer.count) for each in counted.batch_stats] == [(32, 2)]
    put_together_ns = counted.inference_stats.compute_input.ns  # once, however many runs there were
    assert counted.batch_stats[0].compute_input.ns == pytest.approx(put_together_ns, abs=2)
