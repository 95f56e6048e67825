"""A device and its callers in simulated time, around the real scheduler: thousands of schedules a second."""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.batching.batches import TakenBatch
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.request import InferenceRequest, Timing, assemble, scatter_outputs
from inferry_server.batching.scheduler import BatchScheduler
from inferry_server.errors import ServingError

POISON = -1.0  # a row of it makes a run fail


@dataclass
class Caller:
    """One request of a schedule, and what became of it."""

    at: float
    values: tuple[float, ...]
    patience_s: float | None = None
    lane: Lane = Lane.INTERACTIVE
    cancel_after_s: float | None = None
    outcomes: list[object] = field(default_factory=list)
    answered_at: float | None = None
    left_at: float = math.inf  # when it was refused or cancelled
    batches: list[int] = field(default_factory=list)
    request: InferenceRequest | None = None

    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        assert timing.queue_s >= 0
        answer = [float(value) for value in outputs["y"]]
        return lambda: self.outcomes.append(answer)

    def fail(self, error: Exception) -> None:
        self.outcomes.append(error)

    @property
    def deadline(self) -> float | None:
        return None if self.patience_s is None else self.at + self.patience_s


@dataclass
class Simulation:
    """Plays callers against a scheduler whose device takes `a + b n` seconds for n rows.

    Attributes:
        slowness: at a time, what that is multiplied by; and how long the device is waited for before.
        batches: when each began, its rows, and its lane.
        members: when each began, and whose rows it has.
    """

    policy: BatchingPolicy
    a: float
    b: float
    latency: LatencyModel | None = None
    slowness: Callable[[float], tuple[float, float]] = lambda _: (1.0, 0.0)
    batches: list[tuple[float, int, Lane]] = field(default_factory=list)
    members: list[tuple[float, list[Caller]]] = field(default_factory=list)
    now: float = 0.0

    def run(self, callers: list[Caller]) -> None:
        """Play a whole schedule, until everybody has an outcome."""
        scheduler = BatchScheduler(self.policy, self.latency or known_device(self.policy, self.a, self.b))
        order = itertools.count()
        events: list[tuple[float, int, Callable[[], None]]] = []
        running: list[TakenBatch] = []

        def at(time: float, action: Callable[[], None]) -> None:
            heapq.heappush(events, (time, next(order), action))

        def arrive(caller: Caller) -> None:
            x: NDArray[Any] = np.array(caller.values)
            caller.request = InferenceRequest({"x": x}, len(x), caller, caller.deadline, caller.lane)
            try:
                scheduler.admit(caller.request, self.now)
            except ServingError as error:
                caller.outcomes.append(error)
                caller.left_at = self.now
                return
            if caller.cancel_after_s is not None:
                at(self.now + caller.cancel_after_s, lambda: cancel(caller))

        def cancel(caller: Caller) -> None:
            assert caller.request is not None
            if scheduler.settle(caller.request):
                caller.outcomes.append("cancelled")
                caller.left_at = self.now

        def begin() -> None:
            waiting = scheduler.next_batch(self.now)
            if running or waiting is None:
                return
            if waiting.wait_s > 0:
                at(self.now + waiting.wait_s, lambda: None)
                return
            times, waited_s = self.slowness(self.now)
            batch = scheduler.take_batch(self.now, waited_s=waited_s)
            for request, error in batch.refused:
                _caller(request).left_at = self.now
                request.reply.fail(error)
            if batch.slices:
                running.append(batch)
                self.batches.append((self.now, batch.rows, batch.slices[0].request.lane))
                self.members.append((self.now, [_caller(part.request) for part in batch.slices]))
                batch_s = times * (self.a + self.b * batch.rows)
                at(self.now + batch_s, lambda: finish(batch, batch_s))
            else:
                begin()

        def finish(batch: TakenBatch, batch_s: float) -> None:
            running.clear()
            x = assemble(batch.slices, rows=batch.rows, padded=batch.rows)["x"]
            failed = bool((x == POISON).any())
            scheduler.finished(batch, None if failed else batch_s)
            scattered = scatter_outputs(batch.slices, {"y": 2 * x}, batch.rows)
            for part, outputs in zip(batch.slices, scattered, strict=True):
                request = part.request
                _caller(request).batches.append(batch.rows)
                if (part.inputs["x"] == POISON).any():
                    if scheduler.settle(request):
                        request.reply.fail(ValueError("poison"))
                elif not request.settled:
                    whole = request.collect(part.start, outputs, part.rows, assembly_s=0.0, compute_s=0.0)
                    if whole is not None and scheduler.settle(request):
                        _caller(request).answered_at = self.now
                        request.reply.complete(*whole)()

        for caller in callers:
            at(caller.at, lambda caller=caller: arrive(caller))  # type: ignore[misc]
        while events:
            self.now, _, action = heapq.heappop(events)
            action()
            if not events or events[0][0] > self.now:
                begin()
        assert scheduler.rows == 0


def _caller(request: InferenceRequest) -> Caller:
    assert isinstance(request.reply, Caller)
    return request.reply


def known_device(policy: BatchingPolicy, a: float, b: float) -> LatencyModel:
    """A latency model that has seen the device long enough."""
    latency = LatencyModel(policy.max_batch_size)
    for _ in range(100):
        for rows in (1, policy.max_batch_size):
            latency.observe(rows, a + b * rows)
    return latency
