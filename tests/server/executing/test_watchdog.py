"""Who notices that something hangs, and what is done about a run of the model that does."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from inferry_proto.open_inference_pb2 import ServerLiveRequest
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InferenceError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.watchdog import Pulse, Sign, Watchdog
from inferry_server.lifecycle import Phase, Readiness
from inferry_server.runtime.session import OnnxSession, load_session
from testkit import onnx_models
from testkit.batchers import Observer, ScriptedModel, request
from testkit.clock import ManualClock
from testkit.metrics_page import wait_for_value
from testkit.rpc import begin, call, infer_request, refusal
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until

FOR_EVER = np.full((1, 1), 1 << 62)


def test_what_takes_too_long_makes_the_server_not_ready_until_it_is_over() -> None:
    changes: list[str | None] = []
    readiness = Readiness(lambda: changes.append(readiness.hang))
    readiness.enter(Phase.READY)
    counted: list[str] = []
    signs: list[Sign] = []
    watchdog = Watchdog(lambda: signs, hang_after_s=30, hangs=readiness.report_hang, counted=counted.append)
    for seconds in (0.0, 29.9):
        signs[:] = [Sign("model_run", "model a/1 computes", seconds)]
        watchdog.look()
        assert readiness.is_ready()
    for seconds in (30.0, 31.0, 500.0):
        signs[:] = [Sign("model_run", "model a/1 computes", seconds), Sign("reading", "nothing is read", 1.0)]
        watchdog.look()
        assert not readiness.is_ready()
        assert readiness.hang == "model a/1 computes"
    signs[:] = [Sign("model_run", "model a/1 computes", 0.0)]
    watchdog.look()
    assert readiness.is_ready()
    assert counted == ["model_run"]
    assert changes == [None, "model a/1 computes", None]


def test_a_count_that_grows_is_alive_and_a_stopped_process_says_nothing() -> None:
    clock = ManualClock()
    pulse = Pulse(clock)
    assert pulse.still_s(1) == 0
    for _ in range(8):
        clock.advance(0.25)
        still_s = pulse.still_s(1)
    assert still_s == 2
    clock.advance(3600)
    assert pulse.still_s(1) <= 3
    clock.advance(0.25)
    assert pulse.still_s(2) == 0


class Interruptible(ScriptedModel):
    """Runs until it is let go, or ended."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Callable[[], None] = lambda: None
        self.ended = 0
        self.slow_to_end = False

    def interrupter(self) -> Callable[[], None]:
        self.asked()
        return self.end

    def end(self) -> None:
        self.ended += 1
        if not self.slow_to_end:
            self.go.release()


@contextmanager
def computing(clock: ManualClock) -> Iterator[tuple[DynamicBatcher, Interruptible]]:
    model = Interruptible()
    policy = BatchingPolicy(max_batch_size=4, max_request_rows=16, max_queue_size=16, max_queue_bytes=1 << 20)
    batcher = DynamicBatcher(
        "test", [model.run], policy, observer=Observer(), interrupters=[model.interrupter], clock=clock
    )
    batcher.start()
    try:
        yield batcher, model
    finally:
        model.release()
        batcher.close(SOON_S)


def looks(batcher: DynamicBatcher) -> tuple[float, list[str]]:
    oldest_s, ended = batcher.end_long_runs(unwanted_s=1.0, longest_s=60.0)
    return oldest_s, list(ended)


def test_a_run_is_ended_when_all_of_its_requests_were_cancelled_and_not_before() -> None:
    clock = ManualClock()
    with computing(clock) as (batcher, model):
        first, second = request(1)[0], request(2)[0]
        batcher.submit(first)
        model.started.get(timeout=SOON_S)
        batcher.submit(second)  # in the next batch
        clock.advance(2.0)
        assert looks(batcher) == (2.0, [])
        batcher.cancel(first)
        assert looks(batcher) == (2.0, ["unwanted"])
        model.started.get(timeout=SOON_S)
        assert looks(batcher) == (0.0, [])
        assert model.ended == 1


def test_a_run_whose_requests_were_cancelled_a_moment_ago_goes_on() -> None:
    clock = ManualClock()
    with computing(clock) as (batcher, model):
        queued, _ = request(1)
        batcher.submit(queued)
        model.started.get(timeout=SOON_S)
        batcher.cancel(queued)
        clock.advance(0.5)
        assert looks(batcher) == (0.5, [])


def test_no_run_takes_longer_than_the_longest_may() -> None:
    clock = ManualClock()
    with computing(clock) as (batcher, model):
        batcher.submit(request(1)[0])
        model.started.get(timeout=SOON_S)
        clock.advance(59.0)
        assert looks(batcher) == (59.0, [])
        clock.advance(1.0)
        assert looks(batcher) == (60.0, ["too_long"])


def test_a_run_that_takes_a_while_to_end_is_told_of_once_and_the_next_one_again() -> None:
    clock = ManualClock()
    with computing(clock) as (batcher, model):
        model.slow_to_end = True
        for _ in range(2):
            batcher.submit(request(1)[0])
            model.started.get(timeout=SOON_S)
            clock.advance(60.0)
            told = [looks(batcher)[1] for _ in range(3)]
            assert told == [["too_long"], [], []]
            model.go.release()
            wait_until(lambda: not batcher._execution.under_way(), "the run to end")
        assert model.ended == 6


def test_a_run_that_is_done_when_it_is_to_be_ended_does_not_cost_the_next_one() -> None:
    clock = ManualClock()
    with computing(clock) as (batcher, model):
        queued, _ = request(1)
        batcher.submit(queued)
        model.started.get(timeout=SOON_S)
        batcher.submit(request(2)[0])
        batcher.cancel(queued)
        clock.advance(2.0)

        def finish() -> None:
            model.go.release()
            model.started.get(timeout=SOON_S)

        model.asked = finish
        assert looks(batcher) == (2.0, [])
        assert model.ended == 0


def repeater(root: Path) -> OnnxSession:
    onnx_models.save_repeater(root)
    (path,) = root.glob("*/1/model.onnx")
    return load_session(path, providers=["CPUExecutionProvider"], intra_op_num_threads=1)


@pytest.mark.parametrize("shrinks", [False, True])
def test_a_session_ends_the_runs_under_way_and_none_that_begins_later(tmp_path: Path, shrinks: bool) -> None:
    session = repeater(tmp_path)
    if shrinks:
        session.give_memory_back()
    outcomes: queue.Queue[Exception] = queue.Queue()

    def run() -> None:
        with pytest.raises(InferenceError) as raised:
            session.run({"x": FOR_EVER})
        outcomes.put(raised.value)

    thread = threading.Thread(target=run)
    thread.start()
    while outcomes.empty():  # the run may have begun with either options
        session.interrupter()()
    assert "terminate" in str(outcomes.get())
    thread.join(SOON_S)
    end = session.interrupter()
    end()
    assert session.run({"x": np.zeros((1, 1), np.int64)})["y"] == [[1]]


def test_a_request_that_computes_for_ever_costs_its_caller_alone(tmp_path: Path, transport: str) -> None:
    onnx_models.save_repeater(tmp_path)
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, transport=transport) as server:
        batchers = [version.batcher for version in server.registry.served()]
        with grpc.insecure_channel(str(server.grpc_address)) as channel:
            forever = begin(channel, "ModelInfer", infer_request("repeater", x=FOR_EVER))
            wait_until(lambda: any(batcher._execution.under_way() for batcher in batchers), "it to be computed")
            assert call(channel, "ServerLive", ServerLiveRequest()).live
            forever.cancel()
            call(channel, "ModelInfer", infer_request("repeater", x=np.zeros((1, 1), np.int64)))
            call(channel, "ModelInfer", infer_request("doubler", x=np.ones((1, 3), np.float32)))
        wait_for_value(server, 'inferry_runs_ended_total{model="repeater",reason="unwanted",version="1"}', 1)


def test_a_run_that_takes_longer_than_the_setting_allows_fails(tmp_path: Path) -> None:
    onnx_models.save_repeater(tmp_path)
    with (
        running_server(tmp_path, max_run_s=0.3) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        code, _ = refusal(begin(channel, "ModelInfer", infer_request("repeater", x=FOR_EVER)))
        assert code == "INTERNAL"
        wait_for_value(server, 'inferry_runs_ended_total{model="repeater",reason="too_long",version="1"}', 1)
