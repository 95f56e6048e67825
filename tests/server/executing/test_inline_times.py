"""Which models are computed inline, by the times of their batches and by what their graphs allow."""

import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.ownership import Holder
from inferry_server.errors import InferenceError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.inline import InlineWork
from inferry_server.runtime.session import OnnxSession
from testkit import onnx_models
from testkit.batchers import Observer, submit, values
from testkit.inline_batches import INLINE_BATCH_S, POLICY, Threads, reading
from testkit.rpc import call, infer_request
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until


class Slow(Threads):
    """Takes as long as it is told, by a clock that only it moves."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.cpu = 100.0
        self.takes_s = 0.001
        self.stalls_s = 0.0

    def run(self, inputs: Arrays) -> Arrays:
        try:
            return super().run(inputs)
        finally:
            self.now += self.takes_s + self.stalls_s
            self.cpu += self.takes_s

    def asked_once(self, batcher: DynamicBatcher, inline: InlineWork, value: float = 1) -> bool:
        """Have it compute one request; whether the thread that reads did."""
        (reply,) = submit(batcher, value)
        while inline.pending:
            inline.pending.popleft()()
        assert isinstance(reply.outcome(), InferenceError) == (value < 0)
        wait_until(lambda: batcher._queue._holder is Holder.NOBODY, "the batcher to be idle")
        return self.seen[-1] == threading.get_ident()


@pytest.mark.parametrize("value", [1.0, -1.0], ids=["answered", "failed"])
def test_a_model_that_took_far_too_long_once_is_left_to_its_own_thread_for_good(value: float) -> None:
    model = Slow()
    with reading(model.run, clock=lambda: model.now, cpu_clock=lambda: model.cpu) as (batcher, inline, observer):
        assert model.asked_once(batcher, inline)
        model.takes_s = 6 * INLINE_BATCH_S
        model.asked_once(batcher, inline, value)
        model.takes_s = 0.001
        assert [model.asked_once(batcher, inline) for _ in range(100)] == [False] * 100
    assert observer.overruns == [pytest.approx(6 * INLINE_BATCH_S)]


@pytest.mark.parametrize("value", [1.0, -1.0], ids=["answered", "failed"])
def test_a_machine_that_stood_still_during_a_batch_costs_inline_batches_for_a_while_at_most(value: float) -> None:
    model = Slow()
    with reading(model.run, clock=lambda: model.now, cpu_clock=lambda: model.cpu) as (batcher, inline, observer):
        assert model.asked_once(batcher, inline)
        model.stalls_s = 100 * INLINE_BATCH_S
        model.asked_once(batcher, inline, value)
        model.stalls_s = 0.0
        assert [model.asked_once(batcher, inline) for _ in range(50)][-1]
    assert observer.overruns == []


def test_batches_whose_thread_now_and_then_waits_for_a_core_stay_inline() -> None:
    model = Slow()
    with reading(model.run, clock=lambda: model.now, cpu_clock=lambda: model.cpu) as (batcher, inline, _):
        for i in range(60):
            model.stalls_s = 0.6 * INLINE_BATCH_S if i % 2 else 0.0
            assert model.asked_once(batcher, inline)


def test_a_model_whose_times_vary_much_is_left_to_its_own_thread_until_they_do_not() -> None:
    model = Slow()
    with reading(model.run, clock=lambda: model.now, cpu_clock=lambda: model.cpu) as (batcher, inline, observer):
        model.takes_s = 2 * INLINE_BATCH_S  # expected: a tenth of it
        assert model.asked_once(batcher, inline)
        model.takes_s = 0.001
        assert not model.asked_once(batcher, inline)
        assert [model.asked_once(batcher, inline) for _ in range(20)][-1]
    assert observer.overruns == []


def test_a_model_that_was_never_measured_is_left_to_its_own_thread() -> None:
    model, inline = Threads(), InlineWork()
    batcher = DynamicBatcher("test", [model.run], POLICY, observer=Observer(), inline=inline, inline_batch_s=1.0)
    batcher.start()
    with inline.reading():
        (reply,) = submit(batcher, 1)
        assert not inline.pending
        assert values(reply.outcome()) == [2]
    assert batcher.close(SOON_S)


@pytest.mark.parametrize("inline_batch_ms", [1000.0, 0.0])
def test_a_server_computes_short_batches_where_it_reads_unless_it_is_told_not_to(
    tmp_path: Path, transport: str, inline_batch_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    original = OnnxSession.run

    def run(self: OnnxSession, inputs: Arrays) -> Arrays:
        names.append(threading.current_thread().name)
        return original(self, inputs)

    monkeypatch.setattr(OnnxSession, "run", run)
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, transport=transport, inline_batch_ms=inline_batch_ms) as server:
        names.clear()  # of warming up
        with grpc.insecure_channel(str(server.grpc_address)) as channel:
            call(channel, "ModelInfer", infer_request("doubler", x=np.ones((1, 3), np.float32)))
    inline = inline_batch_ms and transport == "completion_queue"
    assert names == ["grpc-queue" if inline else "batcher-doubler-1-0"]


@pytest.mark.parametrize("save", [onnx_models.save_repeater, onnx_models.save_free_lengths, onnx_models.save_text_echo])
def test_a_server_computes_apart_from_reading_what_may_take_as_long_as_a_caller_likes(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    save(tmp_path, name="model")
    with running_server(tmp_path, inline_batch_ms=1000.0) as server:
        (version,) = server.registry.served()
        assert version.batcher._queue._steadiness is None
