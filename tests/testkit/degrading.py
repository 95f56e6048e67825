"""A base and its variant that take turns at the cores, in simulated time, around the real queues, turns and choice."""

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from inferry_proto.datatypes import Arrays
from inferry_proto.variants import ALL, Accepted
from inferry_server.batching.batches import TakenBatch
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.request import InferenceRequest, Timing
from inferry_server.errors import ServingError, ShedError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.core_turns import ComputeGate, Seat
from inferry_server.executing.request_queue import Ran
from inferry_server.models.variants import MadeOf
from inferry_server.services.degrading import CAPACITY, Degrading
from testkit.batchers import Observer
from testkit.simulation import known_device

CORES = 2
_ROW = np.zeros((64, 1), np.uint8)


@dataclass
class Asking:
    """One request, and what became of it.

    Attributes:
        at: when it comes.
        rows: of it.
        accepts: the precisions that it accepts; None: it says nothing.
        model: the name of the model that it is for.
        patience_s: from `at` to its deadline; None: it has none.
        answered_at: when it was answered.
        by: the model that answered.
        error: with which it was refused, or failed.
    """

    at: float
    rows: int = 8
    accepts: Accepted | None = ALL
    model: str = "base"
    patience_s: float | None = 0.1
    lane: Lane = Lane.INTERACTIVE
    answered_at: float = math.inf
    by: str = ""
    error: Exception | None = None

    @property
    def is_useful(self) -> bool:
        """Whether it was answered in time."""
        return self.answered_at < math.inf if self.patience_s is None else self.answered_at <= self.at + self.patience_s

    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        raise AssertionError

    def fail(self, error: Exception) -> None:
        self.error = error


class CountingObserver(Observer):
    """Counts degraded requests too."""

    def __init__(self) -> None:
        super().__init__()
        self.degraded = 0

    def request_degraded(self, variant: str) -> None:
        self.degraded += 1


@dataclass(eq=False)
class Version:
    """One version: as much of it as the choice looks at, and a device that takes a + b n seconds for n rows.

    Attributes:
        fails: whether its batches fail.
        slowness: at a time, what the seconds are multiplied by.
    """

    model: str
    batcher: DynamicBatcher
    seat: Seat
    a: float
    b: float
    made_of: MadeOf | None = None
    fails: bool = False
    slowness: Callable[[float], float] = lambda _: 1.0
    version: str = "1"
    provider: str = "CPU"
    gpus: tuple[int, ...] = ()
    share_of_cores: float = 1.0
    max_request_rows: int = 64
    accepts: Accepted = frozenset()
    computed: TakenBatch | None = None
    asked_at: float | None = None
    busy_s: float = 0.0

    @property
    def observer(self) -> Any:
        return self.batcher._observer

    @property
    def capacity_rows_per_s(self) -> float:
        return self.batcher.capacity_rows_per_s()


class Sharing:
    """Versions that share the cores; the first is the base, those with `made_of` are its variants.

    Attributes:
        now: simulated seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.gate = ComputeGate(CORES, clock=lambda: self.now)
        self.versions: dict[str, Version] = {}
        registry = SimpleNamespace(variants=lambda _: [one for one in self.versions.values() if one.made_of])
        self.degrading = Degrading(cast("Any", registry))

    def add(self, model: str, policy: BatchingPolicy, a: float, b: float, *, variant: str = "", **more: Any) -> Version:
        """Serve a version; `variant` is the precision of one that may answer for the base."""
        seat = self.gate.seat(model, CORES)
        batcher = DynamicBatcher(
            model, [_never], policy, observer=CountingObserver(), latency=known_device(policy, a, b), seats=[seat],
            clock=lambda: self.now,
        )  # fmt: skip
        made_of = MadeOf("base", "", variant, 0.0) if variant else None
        version = self.versions[model] = Version(model, batcher, seat, a, b, made_of, **more)
        return version

    def play(self, requests: Iterable[Asking]) -> Sequence[Asking]:
        """Let requests come until all have an outcome."""
        played = sorted(requests, key=lambda one: one.at)
        order = itertools.count()
        events: list[tuple[float, int, Version | Asking]] = [(one.at, next(order), one) for one in played]
        while events:
            self.now, _, event = heapq.heappop(events)
            if isinstance(event, Version):
                self._finish(event)
            else:
                self._arrive(event)
            for version in self.versions.values():
                ends = self._begin(version)
                if ends is not None:
                    heapq.heappush(events, (ends, next(order), version))
        return played

    def queue(self, version: Version, asking: Asking) -> None:
        """Queue a request for a version, whatever the choice would be; nothing is computed."""
        version.batcher.submit(self._request(asking))

    def _request(self, asking: Asking) -> InferenceRequest:
        return InferenceRequest(
            {"x": _ROW[: asking.rows]}, asking.rows, asking, lane=asking.lane, arrived_at=self.now,
            deadline=None if asking.patience_s is None else asking.at + asking.patience_s,
        )  # fmt: skip

    def _arrive(self, asking: Asking) -> None:
        model, accepted = self.versions[asking.model], lambda: asking.accepts
        request, batcher = self._request(asking), model.batcher
        try:  # as `InferenceService` does
            if asking.lane is Lane.INTERACTIVE:
                if batcher.relief.active:
                    batcher.relief.count(asking.rows, self.now, batcher.capacity_rows_per_s)
                    left_s = self.degrading.left_s(
                        cast("Any", model), accepted, rows=asking.rows, deadline=request.deadline, now=self.now
                    )
                    if left_s:
                        raise ShedError(retry_after_s=left_s)
                if retry_after_s := batcher.shedding.retry_after_s:
                    raise ShedError(retry_after_s=retry_after_s)
            batcher.submit(request)
        except CAPACITY as refusal:
            variants = self.degrading.variants(cast("Any", model), accepted)
            if self.degrading.submit(request, variants, lambda *_: asking, instead_of=cast("Any", model)) is None:
                asking.error = refusal
        except ServingError as error:
            asking.error = error

    def _begin(self, version: Version) -> float | None:
        """Begin the next batch of a version if there is one, and it has its turn; returns when it ends."""
        queue = version.batcher._queue
        if version.computed is not None or queue._scheduler.next_batch(self.now) is None:
            return None
        if version.asked_at is None:
            version.asked_at = self.now
        if not version.seat.try_acquire():
            return None
        waited_s, version.asked_at = self.now - version.asked_at, None
        batch = queue.take(waited_s)
        assert batch is not None
        for request, error in batch.refused:
            request.reply.fail(error)
        if not batch.slices:
            version.seat.leave()
            return self._begin(version)
        version.computed = batch
        version.busy_s = version.slowness(self.now) * (version.a + version.b * batch.rows)
        return self.now + version.busy_s

    def _finish(self, version: Version) -> None:
        batch, queue = version.computed, version.batcher._queue
        assert batch is not None
        version.computed = None
        more = queue._scheduler.next_batch(self.now) is not None
        version.seat.release(version.busy_s, again=more)
        version.asked_at = self.now if more else None
        for part in batch.slices:
            asking = cast("Asking", part.request.reply)
            if version.fails:
                asking.fail(RuntimeError("it fails"))
            else:
                asking.answered_at, asking.by = self.now, version.model
            queue.settle(part.request)
        failed = (batch.slices, RuntimeError()) if version.fails else None
        queue.finished(batch, Ran(version.busy_s, version.busy_s, failed))


def _never(inputs: Arrays) -> Arrays:
    raise AssertionError
