"""Real batchers with scripted models: events say when a batch finishes, nothing sleeps."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from inferry_proto.datatypes import Arrays
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.request import InferenceRequest, PadTo, Timing, exact
from inferry_server.errors import InferenceError, ServingError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.observing import ComputedBatch
from inferry_server.lateness.record import Origin
from testkit.waiting import SOON_S


class Reply:
    """Collects the outcome of one request.

    Attributes:
        outcomes: outputs, or an error; one, if all is well.
        timing: of the answer, if there is one.
    """

    def __init__(self) -> None:
        self.outcomes: queue.Queue[Arrays | Exception] = queue.Queue()
        self.timing: Timing | None = None

    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        assert timing.queue_s >= 0
        assert timing.compute_s >= 0
        self.timing = timing
        answer = {name: array.copy() for name, array in outputs.items()}
        return lambda: self.outcomes.put(answer)

    def fail(self, error: Exception) -> None:
        self.outcomes.put(error)

    def outcome(self) -> Arrays | Exception:
        """Wait for it; there must be no second one."""
        outcome = self.outcomes.get(timeout=SOON_S)
        assert self.outcomes.empty()
        return outcome


class Observer:
    """Notes what a batcher tells."""

    def __init__(self) -> None:
        self.batch_rows: list[int] = []
        self.done = self.failed = self.cancelled = 0
        self.refused: list[str] = []
        self.overruns: list[float] = []
        self.ended: list[str] = []

    def batch_done(self, done: ComputedBatch) -> None:
        self.batch_rows.append(done.rows)
        self.done += len(done.replied.total_s)

    def request_failed(self, error: Exception, origin: Origin, *, total_s: float) -> None:
        self.failed += 1

    def request_refused(
        self, error: ServingError, origin: Origin | None = None, *, total_s: float | None = None
    ) -> None:
        self.refused.append(error.kind)
        self.failed += total_s is not None

    def request_cancelled(self) -> None:
        self.cancelled += 1

    def overran(self, seconds: float) -> None:
        self.overruns.append(seconds)

    def batching_ended(self, reason: str) -> None:
        self.ended.append(reason)


class ScriptedModel:
    """Doubles its input; every run waits until the test lets it go, and -1 makes it fail."""

    def __init__(self) -> None:
        self.started: queue.Queue[int] = queue.Queue()
        self.go = threading.Semaphore(0)
        self.held = True

    def run(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        self.started.put(len(x))
        if self.held:
            assert self.go.acquire(timeout=SOON_S)
        if (x < 0).any():
            raise InferenceError("negative")
        return {"y": 2 * x}

    def release(self) -> None:
        """Hold no run any more."""
        self.held = False
        self.go.release()


@contextmanager
def batching(
    *instances: Callable[[Arrays], Arrays],
    clock: Callable[[], float] = time.monotonic,
    pad_to: PadTo = exact,
    **limits: float,
) -> Iterator[tuple[DynamicBatcher, Observer]]:
    """A batcher that takes requests, and what it tells; closed on leaving."""
    observer = Observer()
    defaults = {"max_batch_size": 4, "max_request_rows": 16, "max_queue_size": 16, "max_queue_bytes": 1 << 20}
    policy = BatchingPolicy(**defaults | limits)  # type: ignore[arg-type]
    batcher = DynamicBatcher("test", instances, policy, observer=observer, clock=clock, pad_to=pad_to)
    batcher.start()
    try:
        yield batcher, observer
    finally:
        batcher.close(SOON_S)


def request(
    *values: float, deadline: float | None = None, lane: Lane = Lane.INTERACTIVE
) -> tuple[InferenceRequest, Reply]:
    """A request for `x`, a row for each value, and where its outcome will be."""
    reply, inputs = Reply(), {"x": np.array(values)[:, None]}
    return InferenceRequest(inputs, len(values), reply, deadline=deadline, lane=lane), reply


def values(outcome: Arrays | Exception) -> list[float]:
    """The rows of `y`, which must be an answer."""
    assert not isinstance(outcome, Exception), outcome
    return [float(value) for value in outcome["y"][:, 0]]


def submit(batcher: DynamicBatcher, *values: float) -> list[Reply]:
    """Queue a request of one row for each value."""
    asked = [request(value) for value in values]
    for queued, _ in asked:
        batcher.submit(queued)
    return [reply for _, reply in asked]
