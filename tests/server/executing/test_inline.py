"""Short batches on the thread that reads requests: the test is that thread, and says when it has time."""

import contextlib
import dataclasses
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel, ShapeLatencies
from inferry_server.batching.ownership import Holder
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import DeadlineExceededError, InferenceError, QueueFullError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.core_turns import ComputeGate, Seat
from inferry_server.executing.inline import InlineWork
from inferry_server.runtime.session import OnnxSession
from testkit import onnx_models
from testkit.batchers import Observer, Reply, ScriptedModel, request, values
from testkit.rpc import call, infer_request
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=16, max_queue_size=1000, max_queue_bytes=1 << 20)
INLINE_BATCH_S = 0.01


class Threads:
    """A model that doubles, and notes which threads compute it; -1 makes it fail."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._running = threading.Lock()

    def run(self, inputs: Arrays) -> Arrays:
        assert self._running.acquire(blocking=False), "two batches at a time on one instance"
        try:
            self.seen.append(threading.get_ident())
            if (inputs["x"] < 0).any():
                raise InferenceError("negative")
            return {"y": 2 * inputs["x"]}
        finally:
            self._running.release()


@contextlib.contextmanager
def reading(
    run: Callable[[Arrays], Arrays],
    *,
    batch_s: float = 0.001,
    seat: Seat | None = None,
    policy: BatchingPolicy = POLICY,
    clock: Callable[[], float] = lambda: 100.0,  # it stands still: how busy the machine is changes nothing
    cpu_clock: Callable[[], float] = lambda: 100.0,
) -> Iterator[tuple[DynamicBatcher, InlineWork, Observer]]:
    """A batcher, the inline work of the test's thread, and what is told of batches."""
    inline, observer, latency = InlineWork(), Observer(), LatencyModel(POLICY.max_batch_size)
    for rows in (1, 4):
        latency.observe(rows, batch_s)
    batcher = DynamicBatcher(
        "test", [run], policy, observer=observer, latency=latency, inline=inline, inline_batch_s=INLINE_BATCH_S,
        seats=None if seat is None else [seat], clock=clock, cpu_clock=cpu_clock,
    )  # fmt: skip
    batcher.start()
    try:
        with inline.reading():
            yield batcher, inline, observer
    finally:
        batcher.close(SOON_S)


def elsewhere(act: Callable[[], object]) -> None:
    """Do something on a thread that reads no requests."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(SOON_S)
    assert not thread.is_alive()


def submit(batcher: DynamicBatcher, *rows: float) -> list[Reply]:
    asked = [request(value) for value in rows]
    for queued, _ in asked:
        batcher.submit(queued)
    return [reply for _, reply in asked]


def test_what_was_read_is_computed_together_by_the_thread_that_read_it_when_it_has_time() -> None:
    model = Threads()
    with reading(model.run) as (batcher, inline, observer):
        replies = submit(batcher, 1, 2, 3)
        assert inline.pending
        assert not model.seen
        inline.pending.popleft()()
        assert not inline.pending
        assert [values(reply.outcome()) for reply in replies] == [[2], [4], [6]]
    assert model.seen == [threading.get_ident()]
    assert observer.batch_rows == [3]


def test_more_than_a_batch_is_computed_batch_by_batch_with_reading_in_between() -> None:
    model = Threads()
    with reading(model.run) as (batcher, inline, observer):
        replies = submit(batcher, *range(6))
        inline.pending.popleft()()
        assert observer.batch_rows == [4]
        replies += submit(batcher, 6)
        inline.pending.popleft()()
        assert not inline.pending
        assert [values(reply.outcome()) for reply in replies] == [[2.0 * i] for i in range(7)]
    assert observer.batch_rows == [4, 3]


def test_requests_are_shed_while_full_batches_wait_and_more_come_than_there_is_room_for() -> None:
    now = 100.0
    policy = dataclasses.replace(POLICY, max_queue_size=10)
    with reading(Threads().run, policy=policy, clock=lambda: now) as (batcher, inline, _):

        def sheds() -> bool:
            assert batcher.shedding is inline.shedding or not batcher.shedding.retry_after_s
            return batcher.shedding.retry_after_s > 0

        submit(batcher, *range(10))
        assert not sheds()
        with pytest.raises(QueueFullError):
            submit(batcher, 10)
        assert sheds()
        inline.pending.popleft()()
        assert sheds()
        inline.pending.popleft()()
        assert not sheds()  # two are left, and others may join them
        submit(batcher, 10, 11)
        assert sheds()
        inline.pending.popleft()()
        now += 0.3
        submit(batcher, *range(10))
        assert not sheds()


def test_a_request_without_a_chance_makes_nobody_shed() -> None:
    with reading(Threads().run) as (batcher, inline, _):
        submit(batcher, *range(4))
        with pytest.raises(DeadlineExceededError):
            batcher.submit(request(4, deadline=0.0)[0])
        assert not batcher.shedding.retry_after_s
        inline.pending.popleft()()


def test_shedding_ends_where_the_batch_is_left_to_another_thread() -> None:
    gate = ComputeGate(1)
    other = gate.seat("other", 1)
    other.acquire()
    policy = dataclasses.replace(POLICY, max_queue_size=4, max_request_rows=4)
    with reading(Threads().run, seat=gate.seat("mine", 1), policy=policy) as (batcher, inline, _):
        replies = submit(batcher, *range(4))
        with pytest.raises(QueueFullError):
            submit(batcher, 4)
        assert batcher.shedding.retry_after_s
        inline.pending.popleft()()
        assert not batcher.shedding.retry_after_s
        other.release(0.001, again=False)
        assert [values(reply.outcome()) for reply in replies] == [[2.0 * i] for i in range(4)]


def test_what_other_threads_submit_is_computed_on_the_batchers_own() -> None:
    model = Threads()
    with reading(model.run) as (batcher, inline, _):
        replies: list[Reply] = []
        elsewhere(lambda: replies.extend(submit(batcher, 1)))
        assert values(replies[0].outcome()) == [2]
        assert not inline.pending
    assert threading.get_ident() not in model.seen


def test_a_batch_that_takes_long_is_left_to_the_batchers_thread() -> None:
    model = Threads()
    with reading(model.run, batch_s=2 * INLINE_BATCH_S) as (batcher, inline, _):
        (reply,) = submit(batcher, 1)
        assert not inline.pending
        assert values(reply.outcome()) == [2]
    assert threading.get_ident() not in model.seen


def test_a_batch_that_has_become_long_while_it_was_offered_is_left_to_the_batchers_thread() -> None:
    model = Threads()
    with reading(model.run, batch_s=0.004) as (batcher, inline, _):
        slow = LatencyModel(4)
        for rows in (1, 4):
            slow.observe(rows, rows * 0.004)  # one row is short, four are not
        batcher._queue._scheduler._latencies = ShapeLatencies(slow, 4)
        replies = submit(batcher, 1, 2, 3, 4)
        inline.pending.popleft()()
        assert [values(reply.outcome()) for reply in replies] == [[2], [4], [6], [8]]
    assert threading.get_ident() not in model.seen


def test_the_batchers_thread_gives_short_batches_back_and_takes_them_if_nobody_comes() -> None:
    model = ScriptedModel()
    with reading(model.run) as (batcher, inline, observer):
        replies: list[Reply] = []
        elsewhere(lambda: replies.extend(submit(batcher, 1)))
        model.started.get(timeout=SOON_S)
        replies += submit(batcher, 2, 3)
        assert not inline.pending  # the device is taken
        model.release()
        assert [values(reply.outcome()) for reply in replies] == [[2], [4], [6]]
        wait_until(lambda: bool(inline.pending), "the next batch to be offered")
        inline.pending.popleft()()  # too late, and does nothing
    assert observer.batch_rows == [1, 2]


def test_of_a_batch_that_fails_only_the_guilty_request_fails_and_not_on_the_thread_that_reads() -> None:
    model = Threads()
    with reading(model.run) as (batcher, inline, _):
        replies = submit(batcher, 1, -1, 3)
        inline.pending.popleft()()
        assert values(replies[0].outcome()) == [2]
        assert isinstance(replies[1].outcome(), InferenceError)
        assert values(replies[2].outcome()) == [6]
    assert model.seen.count(threading.get_ident()) == 1
    assert len(model.seen) == 4


def test_while_another_model_has_the_cores_the_thread_that_reads_does_not_wait_for_them() -> None:
    gate = ComputeGate(1)
    other = gate.seat("other", 1)
    other.acquire()
    model = Threads()
    with reading(model.run, seat=gate.seat("mine", 1)) as (batcher, inline, _):
        (reply,) = submit(batcher, 1)
        inline.pending.popleft()()
        assert not model.seen
        assert not inline.pending
        other.release(0.001, again=False)
        assert values(reply.outcome()) == [2]
        assert threading.get_ident() not in model.seen
        wait_until(lambda: batcher._queue._holder is Holder.NOBODY, "the model to be idle")
        (reply,) = submit(batcher, 1)
        inline.pending.popleft()()
        assert values(reply.outcome()) == [2]
        assert model.seen[-1] == threading.get_ident()


def test_a_cancelled_request_leaves_the_cores_to_others() -> None:
    gate = ComputeGate(1)
    model = Threads()
    with reading(model.run, seat=gate.seat("mine", 1)) as (batcher, inline, _):
        queued, reply = request(1)
        batcher.submit(queued)
        assert batcher.cancel(queued)
        inline.pending.popleft()()
        assert not inline.pending
        other = gate.seat("other", 1)
        assert other.try_acquire()
        other.leave()
    assert reply.outcomes.empty()
    assert not model.seen


def test_closing_waits_for_what_is_offered_inline() -> None:
    model = Threads()
    finished: queue.Queue[bool] = queue.Queue()
    with reading(model.run) as (batcher, inline, _):
        (reply,) = submit(batcher, 1)
        closing = threading.Thread(target=lambda: finished.put(batcher.close(SOON_S)))
        closing.start()
        wait_until(lambda: batcher._queue._closing, "the batcher to be closing")
        inline.pending.popleft()()
        assert values(reply.outcome()) == [2]
        assert finished.get(timeout=SOON_S)
        closing.join(SOON_S)


def test_a_thread_of_the_instance_that_wakes_meanwhile_leaves_an_inline_batch_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Threads()
    original, waits = threading.Condition.wait, queue.SimpleQueue[str]()

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        if self is batcher._queue._changed:
            waits.put("waits again")
        return original(self, timeout)

    def run(inputs: Arrays) -> Arrays:
        if not model.seen:
            monkeypatch.setattr(threading.Condition, "wait", wait)
            batcher._queue.close()  # wakes the batcher's thread
            assert waits.get(timeout=SOON_S) == "waits again"
        else:
            waits.put("computes")
        return model.run(inputs)

    with reading(run) as (batcher, inline, observer):
        replies = submit(batcher, *range(6))
        inline.pending.popleft()()
        inline.pending.popleft()()
        assert [values(reply.outcome()) for reply in replies] == [[2.0 * i] for i in range(6)]
    assert observer.batch_rows == [4, 2]


def test_what_was_accepted_is_done_before_the_thread_leaves() -> None:
    done: list[str] = []
    inline = InlineWork()
    with inline.reading():
        done.append(f"here: {threading.get_ident() == inline.thread}")
        inline.pending.append(lambda: done.append("mine"))
        elsewhere(lambda: inline.pending.append(lambda: done.append("theirs")))
        elsewhere(lambda: done.append(f"elsewhere: {threading.get_ident() == inline.thread}"))
    assert inline.thread is None
    assert done == ["here: True", "elsewhere: False", "mine", "theirs"]


def test_an_idle_device_that_waits_for_a_fuller_batch_is_left_to_a_thread_that_can_wait() -> None:
    model = Threads()
    patient = BatchingPolicy(
        max_batch_size=4, max_request_rows=16, max_queue_size=99, max_queue_bytes=1 << 20, max_queue_delay_s=0.001
    )
    with reading(model.run, policy=patient, clock=time.monotonic) as (batcher, inline, _):
        (reply,) = submit(batcher, 1)
        assert not inline.pending
        assert values(reply.outcome()) == [2]
    assert threading.get_ident() not in model.seen


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
def test_a_machine_that_stood_still_during_a_batch_costs_inline_batches_for_a_while_only(value: float) -> None:
    model = Slow()
    with reading(model.run, clock=lambda: model.now, cpu_clock=lambda: model.cpu) as (batcher, inline, observer):
        assert model.asked_once(batcher, inline)
        model.stalls_s = 100 * INLINE_BATCH_S
        model.asked_once(batcher, inline, value)
        model.stalls_s = 0.0
        assert not model.asked_once(batcher, inline)
        assert [model.asked_once(batcher, inline) for _ in range(50)][-1]
    assert observer.overruns == []


def test_a_model_whose_times_vary_much_is_left_to_its_own_thread_until_they_do_not() -> None:
    model = Slow()
    with reading(model.run, clock=lambda: model.now) as (batcher, inline, observer):
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


@pytest.mark.parametrize("seed", range(20))
def test_whoever_submits_and_whenever_there_is_time_every_request_is_answered_once(seed: int) -> None:
    chance = random.Random(seed)
    model = Threads()
    with reading(model.run, seat=ComputeGate(1).seat("mine", 1)) as (batcher, inline, _):
        asked: queue.SimpleQueue[tuple[float, Reply]] = queue.SimpleQueue()

        def ask(value: float) -> None:
            queued, reply = request(value)
            batcher.submit(queued)
            asked.put((value, reply))

        others = [
            threading.Thread(target=lambda start=start: list(map(ask, range(start, start + 50))))
            for start in (100, 200)
        ]
        for thread in others:
            thread.start()
        for i in range(50):
            ask(-1.0 if i % 17 == 3 else float(i))
            while inline.pending and chance.random() < 0.5:
                inline.pending.popleft()()
        for thread in others:
            thread.join(SOON_S)
        while inline.pending:
            inline.pending.popleft()()
        for _ in range(150):
            value, reply = asked.get(timeout=SOON_S)
            outcome = reply.outcome()
            assert isinstance(outcome, InferenceError) if value < 0 else values(outcome) == [2 * value]


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
