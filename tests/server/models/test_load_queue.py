"""Loads wait for one another only as long as they should, and what does not end is given up."""

import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InferenceError, ModelLoadError, QueueFullError, ShuttingDownError
from inferry_server.models.limited_load import Load, load_within
from inferry_server.models.load_queue import LoadQueue
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.manager import ModelManager
from inferry_server.models.registry import ModelRegistry, State
from inferry_server.models.repository import VersionFolder, scan_repository
from inferry_server.models.version import ServedVersion
from inferry_server.runtime.load_watch import LoadWatch
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import OnnxSession, load_session
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.waiting import SOON_S, wait_until

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)


class Gate:
    """A job that runs until it is let go, and what was said of it."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.said: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def run(self) -> None:
        self.began.set()
        assert self.go.wait(SOON_S)

    def outcome(self) -> Exception | None:
        return self.said.get(timeout=SOON_S)


@pytest.fixture
def gates() -> Iterator[list[Gate]]:
    made = [Gate() for _ in range(6)]
    yield made
    for gate in made:
        gate.go.set()


def test_a_job_has_the_machine_for_itself_until_it_has_run_for_a_while(gates: list[Gate]) -> None:
    looks: queue.SimpleQueue[float] = queue.SimpleQueue()  # one for each time that the queue decides what may begin

    def clock() -> float:
        looks.put(0.0)
        return 0.0

    loads = LoadQueue(patience_s=1e6, clock=clock)
    first, second = gates[:2]
    loads.submit("a", first.run, first.said.put)
    for _ in ("the first job begins", "nothing else waits"):
        looks.get(timeout=SOON_S)
    loads.submit("b", second.run, second.said.put)
    looks.get(timeout=SOON_S)  # it is decided under the lock that `close` takes
    assert [job.model for job in loads.close()] == ["a"]
    assert isinstance(second.outcome(), ShuttingDownError)


def test_a_job_begins_when_the_one_before_it_has_ended(gates: list[Gate]) -> None:
    loads = LoadQueue(patience_s=1e6)
    first, second = gates[:2]
    loads.submit("a", first.run, first.said.put)
    loads.submit("b", second.run, second.said.put)
    assert first.began.wait(SOON_S)
    assert loads.is_busy("b")
    assert not second.began.is_set()
    first.go.set()
    assert second.began.wait(SOON_S)


def test_a_job_that_does_not_end_holds_up_no_other_model_but_its_own(gates: list[Gate]) -> None:
    loads = LoadQueue(patience_s=0)
    hangs, own, other = gates[:3]
    loads.submit("a", hangs.run, hangs.said.put)
    loads.submit("a", own.run, own.said.put)
    loads.submit("b", other.run, other.said.put)
    other.go.set()
    assert other.outcome() is None
    assert not own.began.is_set()
    hangs.go.set()
    assert own.began.wait(SOON_S)


def test_no_more_run_than_may(gates: list[Gate]) -> None:
    loads = LoadQueue(patience_s=0, most_running=2)
    for name, gate in zip("abc", gates, strict=False):
        loads.submit(name, gate.run, gate.said.put)
    assert gates[0].began.wait(SOON_S)
    assert gates[1].began.wait(SOON_S)
    assert not gates[2].began.is_set()
    gates[0].go.set()
    assert gates[2].began.wait(SOON_S)


def test_the_queue_is_bounded_for_clients_and_drops_whom_nobody_waits_for(gates: list[Gate]) -> None:
    loads = LoadQueue(most_waiting=2, patience_s=1e6)
    running, gone, stays = gates[:3]
    loads.submit("a", running.run, running.said.put)
    assert running.began.wait(SOON_S)
    dropped = loads.submit("b", gone.run, gone.said.put)
    loads.submit("c", stays.run, stays.said.put)
    with pytest.raises(QueueFullError, match="3 loads, the limit is 2"):
        loads.submit("d", stays.run, stays.said.put)
    loads.drop(dropped)
    loads.drop(dropped)
    loads.submit("d", stays.run, stays.said.put)
    loads.submit("e", stays.run, stays.said.put, bounded=False)
    running.go.set()
    stays.go.set()
    for _ in range(3):
        assert stays.outcome() is None
    assert not gone.began.is_set()
    assert gone.said.empty()


def test_closing_tells_those_that_wait_and_waits_for_nobody(gates: list[Gate]) -> None:
    loads = LoadQueue(patience_s=1e6)
    running, waiting = gates[:2]
    job = loads.submit("a", running.run, running.said.put)
    assert running.began.wait(SOON_S)
    loads.submit("b", waiting.run, waiting.said.put)
    assert loads.close() == (job,)
    assert isinstance(waiting.outcome(), ShuttingDownError)
    with pytest.raises(ShuttingDownError):
        loads.submit("c", waiting.run, waiting.said.put)


def test_a_job_that_raises_is_answered_and_the_next_one_runs(gates: list[Gate]) -> None:
    loads = LoadQueue()

    def fail() -> None:
        raise KeyError("nobody foresaw it")

    loads.submit("a", fail, gates[0].said.put)
    loads.submit("a", lambda: None, gates[1].said.put)
    assert isinstance(gates[0].outcome(), KeyError)
    assert gates[1].outcome() is None


def save_endless(repository: Path, name: str = "endless") -> None:
    """`y = x 2^n`, the first above 10: never for zeros."""
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["x_in", "two"], ["x_out"]),
            helper.make_node("ReduceSum", ["x_out"], ["sum"], keepdims=0),
            helper.make_node("Less", ["sum", "ten"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_in", TensorProto.FLOAT, ["N", 1]),
        ],
        [
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, ["N", 1]),
        ],
    )
    onnx_models.save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(np.array(2, np.float32), "two"),
            numpy_helper.from_array(np.array(10, np.float32), "ten"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )


def test_a_load_that_takes_too_long_is_told_to_end_and_fails_with_the_setting(tmp_path: Path) -> None:
    save_endless(tmp_path)
    watch = LoadWatch()
    folder = VersionFolder("endless", 1, tmp_path / "endless" / "1")
    with pytest.raises(ModelLoadError, match=r"endless/1: loading took longer than 0\.3 s.* model_load_timeout_s"):
        load_within(
            lambda watch: load_version(folder, LoadOptions((CPU,), 1, 1, POLICY, ServerMetrics(), watch=watch)),
            watch, timeout_s=0.3, name=str(folder), grace_s=SOON_S,
        )  # fmt: skip
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "load-endless/1"], "the end of its thread")


def test_a_load_that_does_not_end_is_left_behind_and_its_version_closed_when_it_comes(gates: list[Gate]) -> None:
    class Version:
        closed = threading.Event()

        def close(self, timeout_s: float) -> bool:
            self.closed.set()
            return True

    priorities: list[int] = []

    def load(watch: LoadWatch) -> ServedVersion:
        gates[0].run()
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return Version()  # type: ignore[return-value]

    watch = LoadWatch()
    with pytest.raises(ModelLoadError, match="a/1: loading took longer"):
        load_within(load, watch, timeout_s=0, name="a/1", grace_s=0)
    gates[0].go.set()
    assert Version.closed.wait(SOON_S)
    assert priorities == [19] or sys.platform != "linux"  # it takes no core that anybody else wants


def test_a_watch_ends_what_is_added_after_it_was_cancelled_and_nothing_after_the_load() -> None:
    ended: list[str] = []
    watch = LoadWatch()
    watch.add(lambda: ended.append("before"))
    watch.cancel("enough")
    watch.cancel("once more")
    watch.add(lambda: ended.append("after"))
    assert (ended, watch.reason, watch.finish()) == (["before", "after"], "enough", False)
    finished = LoadWatch()
    assert finished.finish()
    finished.add(lambda: ended.append("never"))
    finished.cancel("too late")
    assert (finished.reason, "never" in ended) == (None, False)


def test_runs_that_nobody_waits_for_are_ended(tmp_path: Path) -> None:
    save_endless(tmp_path)
    watch, outcomes = LoadWatch(), queue.SimpleQueue[Exception]()
    path = tmp_path / "endless" / "1" / "model.onnx"
    session: OnnxSession = load_session(path, providers=(CPU,), intra_op_num_threads=1, watch=watch)
    assert session.run({"x": np.ones((1, 1), np.float32)})["y"] == 16

    def run() -> None:
        try:
            session.run({"x": np.zeros((1, 1), np.float32)})
        except InferenceError as error:
            outcomes.put(error)

    threading.Thread(target=run, daemon=True).start()
    watch.end_runs()
    assert "terminate" in str(outcomes.get(timeout=SOON_S))
    session.interrupter()
    run()
    assert "terminate" in str(outcomes.get(timeout=SOON_S))


class Served:
    """A manager over a repository, without a server."""

    def __init__(self, root: Path, *, model_load_timeout_s: float = SOON_S) -> None:
        self.root = root
        self.registry = ModelRegistry(lambda: None)
        options = LoadOptions((CPU,), 1, 1, POLICY, ServerMetrics())
        self.manager = ModelManager(
            root, self.registry, options, drain_timeout_s=5, model_load_timeout_s=model_load_timeout_s,
            loads=LoadQueue(patience_s=0),
        )  # fmt: skip

    def states(self) -> dict[str, State]:
        return {entry.model: entry.state for entry in self.registry.index()}


def test_a_model_that_never_loads_leaves_the_others_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def patient(load: Load, watch: LoadWatch, *, timeout_s: float, name: str) -> ServedVersion:
        return load_within(load, watch, timeout_s=timeout_s if name.startswith("endless") else SOON_S, name=name)

    monkeypatch.setattr("inferry_server.models.manager.load_within", patient)
    for name in ("first", "last"):
        onnx_models.save_doubler(tmp_path, name=name)
    save_endless(tmp_path)
    served = Served(tmp_path, model_load_timeout_s=1.0)
    served.manager.load_all(scan_repository(tmp_path), lambda: False)
    assert served.states() == {"first": State.READY, "last": State.READY, "endless": State.UNAVAILABLE}
    reason = next(entry.reason for entry in served.registry.index() if entry.model == "endless")
    assert "model_load_timeout_s" in reason


def test_a_start_that_is_to_stop_does_not_wait_for_what_is_loaded(tmp_path: Path) -> None:
    save_endless(tmp_path)
    served = Served(tmp_path)
    served.manager.load_all(scan_repository(tmp_path), lambda: served.states().get("endless") is State.LOADING)
    served.manager.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("load-")]


def test_a_stop_answers_the_callers_of_loads_that_run_and_wait(tmp_path: Path) -> None:
    save_endless(tmp_path)
    served = Served(tmp_path)
    runs, waits = Gate(), Gate()
    served.manager.load_model("endless", runs.said.put)
    wait_until(lambda: served.states().get("endless") is State.LOADING, "the load to begin")
    served.manager.load_model("endless", waits.said.put)
    served.manager.close()
    assert isinstance(runs.outcome(), ShuttingDownError)
    assert isinstance(waits.outcome(), ShuttingDownError)
    with pytest.raises(ShuttingDownError):
        served.manager.load_model("endless", waits.said.put)


def test_polling_goes_on_while_a_model_is_loaded(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    save_endless(tmp_path)
    served = Served(tmp_path)
    served.manager.poll_once(patience_s=0)
    wait_until(lambda: served.states().get("doubler") is State.READY, "the first model")
    onnx_models.save_doubler(tmp_path, name="new")
    served.manager.poll_once(patience_s=0)
    wait_until(lambda: served.states().get("new") is State.READY, "the new model")
    assert served.states()["endless"] is State.LOADING
    served.manager.close()
