"""Models before the same cores, through real batchers and scripted sessions: nothing sleeps."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.errors import InferenceError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.core_turns import ComputeGate
from testkit.batchers import Observer, submit
from testkit.clock import ManualClock
from testkit.turns import until_asked
from testkit.waiting import SOON_S

POLICY = BatchingPolicy(max_batch_size=1, max_request_rows=1, max_queue_size=1000, max_queue_bytes=1 << 20)


class Cores:
    """Watches who computes: never more threads at a time than there are cores."""

    def __init__(self, count: int, clock: ManualClock) -> None:
        self.count = count
        self.batches: list[str] = []
        self._clock = clock
        self._lock = threading.Lock()
        self._busy = 0

    def model(self, name: str, seconds: float, threads: int) -> Callable[[Arrays], Arrays]:
        def run(inputs: Arrays) -> Arrays:
            with self._lock:
                self._busy += threads
                assert self._busy <= self.count
                self.batches.append(name)
                self._clock.advance(seconds)
            if (inputs["x"] < 0).any():
                self._end(threads)
                raise InferenceError("negative")
            self._end(threads)
            return {"y": inputs["x"]}

        return run

    def _end(self, threads: int) -> None:
        with self._lock:
            self._busy -= threads


@contextmanager
def sharing(
    gate: ComputeGate, cores: Cores, clock: ManualClock, threads: int, **seconds: float
) -> Iterator[dict[str, DynamicBatcher]]:
    """Batchers that wait to be started, by name, each for a model whose batches take so long."""
    batchers = {
        name: DynamicBatcher(
            name,
            [cores.model(name, model_s, threads)],
            POLICY,
            observer=Observer(),
            seats=[gate.seat(name, threads)],
            clock=clock,
        )
        for name, model_s in seconds.items()
    }
    with ExitStack() as stack:
        for batcher in batchers.values():
            stack.callback(batcher.close, 0)
        yield batchers


def test_a_model_with_slow_batches_leaves_half_the_time_to_one_with_fast_ones() -> None:
    clock = ManualClock()
    gate, cores = ComputeGate(2, clock=clock), Cores(2, clock)
    with sharing(gate, cores, clock, threads=2, slow=0.1, fast=0.001) as batchers:
        holder = gate.seat("holder", 2)
        holder.acquire()
        waiting = [*submit(batchers["slow"], *range(5)), *submit(batchers["fast"], *range(500))]
        for batcher in batchers.values():
            batcher.start()
        until_asked(gate, "slow", "fast")
        holder.release(0.0, again=False)
        for reply in waiting:
            assert not isinstance(reply.outcome(), Exception)
    last_slow = max(at for at, name in enumerate(cores.batches) if name == "slow")
    assert Counter(cores.batches[:last_slow])["fast"] == pytest.approx(400, abs=2)  # as long as four slow ones


def test_two_models_of_one_thread_compute_side_by_side_on_two_cores() -> None:
    meet = threading.Barrier(2, timeout=SOON_S)

    def run(inputs: Arrays) -> Arrays:
        meet.wait()
        return {"y": inputs["x"]}

    gate = ComputeGate(2)
    batchers = [DynamicBatcher(name, [run], POLICY, observer=Observer(), seats=[gate.seat(name, 1)]) for name in "ab"]
    replies = [submit(batcher, 1)[0] for batcher in batchers]
    for batcher in batchers:
        batcher.start()
    for reply in replies:
        assert not isinstance(reply.outcome(), Exception)
    assert all(batcher.close(SOON_S) for batcher in batchers)


def test_the_wait_for_a_turn_counts_as_queueing_and_not_as_computing() -> None:
    clock = ManualClock()
    gate = ComputeGate(1, clock=clock)
    cores = Cores(1, clock)
    neighbour = gate.seat("neighbour", 1)
    neighbour.acquire()
    with sharing(gate, cores, clock, threads=1, waits=0.25) as batchers:
        (reply,) = submit(batchers["waits"], 1)
        batchers["waits"].start()
        until_asked(gate, "waits")
        clock.advance(5.0)
        neighbour.release(5.0, again=False)
        reply.outcome()
        timing = reply.timing
        assert timing is not None
        assert (timing.queue_s, timing.assembly_s, timing.compute_s) == (5.0, 0.0, 0.25)


def test_what_arrives_while_a_batch_waits_for_its_turn_still_joins_it() -> None:
    gate = ComputeGate(1)
    neighbour = gate.seat("neighbour", 1)
    neighbour.acquire()
    sizes: queue.Queue[int] = queue.Queue()

    def run(inputs: Arrays) -> Arrays:
        sizes.put(len(inputs["x"]))
        return {"y": inputs["x"]}

    policy = BatchingPolicy(max_batch_size=8, max_request_rows=8, max_queue_size=8, max_queue_bytes=1 << 20)
    batcher = DynamicBatcher("test", [run], policy, observer=Observer(), seats=[gate.seat("test", 1)])
    batcher.start()
    submit(batcher, 1, 2, 3)
    neighbour.release(1.0, again=False)
    assert sizes.get(timeout=SOON_S) == 3
    assert batcher.close(SOON_S)


def test_a_model_that_fails_gives_its_turn_back() -> None:
    clock = ManualClock()
    gate, cores = ComputeGate(1, clock=clock), Cores(1, clock)
    with sharing(gate, cores, clock, threads=1, bad=0.1, good=0.1) as batchers:
        failing, working = submit(batchers["bad"], -1, -1), submit(batchers["good"], 1, 1)
        for batcher in batchers.values():
            batcher.start()
        assert all(isinstance(reply.outcome(), InferenceError) for reply in failing)
        assert not any(isinstance(reply.outcome(), Exception) for reply in working)
        assert batchers["bad"].queued(Lane.INTERACTIVE).rows == 0


def test_whoever_has_nothing_to_compute_any_more_leaves_the_cores_to_others() -> None:
    gate = ComputeGate(1)
    first, second = gate.seat("first", 1), gate.seat("second", 1)
    first.acquire()
    first.release(1.0, again=True)  # and then its requests are cancelled
    first.leave()
    assert second.acquire() == pytest.approx(0, abs=SOON_S)
    second.release(1.0, again=False)
    second.leave()
    assert not gate._queue._accounts


def test_a_thread_that_still_makes_its_replies_keeps_its_turn_where_it_is_behind_and_only_there() -> None:
    gate = ComputeGate(1)
    fast, slow, third = gate.seat("fast", 1), gate.seat("slow", 1), gate.seat("third", 1)
    fast.acquire()
    waiting = threading.Thread(target=slow.acquire, daemon=True)
    waiting.start()
    until_asked(gate, "slow")
    fast.release(0.001, again=True)  # the other one is behind now
    waiting.join(SOON_S)
    slow.release(1.0, again=True)  # and now the fast one is, by nearly a second
    asking = threading.Thread(target=third.acquire, daemon=True)
    asking.start()
    until_asked(gate, "third")
    assert fast.acquire() == 0.0
    fast.release(0.001, again=False)
    fast.leave()
    asking.join(SOON_S)
    assert not asking.is_alive()
