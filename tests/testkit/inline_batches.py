"""A batcher whose short batches the test's thread computes: it is the thread that reads requests."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InferenceError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.core_turns import Seat
from inferry_server.executing.inline import InlineWork
from testkit.batchers import Observer
from testkit.waiting import SOON_S

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
