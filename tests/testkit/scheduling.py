"""A scheduler that is asked one thing at a time, at a time that the test says."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.request import InferenceRequest, Timing
from inferry_server.batching.scheduler import BatchScheduler
from testkit.simulation import known_device

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=16, max_queue_size=16, max_queue_bytes=1000)


class NoReply:
    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        raise AssertionError

    def fail(self, error: Exception) -> None:
        raise AssertionError


def request(
    rows: int = 1, *, deadline: float | None = None, width: int = 1, lane: Lane = Lane.INTERACTIVE
) -> InferenceRequest:
    return InferenceRequest({"x": np.zeros((rows, width), np.uint8)}, rows, NoReply(), deadline=deadline, lane=lane)


def scheduler(*, a: float = 0.0, b: float = 0.0, instances: int = 1, **limits: float) -> BatchScheduler:
    policy = replace(POLICY, **limits)  # type: ignore[arg-type]
    latency = known_device(policy, a, b) if a or b else LatencyModel(policy.max_batch_size)
    return BatchScheduler(policy, latency, instances=instances)


def admit(queue: BatchScheduler, *requests: InferenceRequest, now: float = 0.0) -> None:
    for waiting in requests:
        queue.admit(waiting, now)


def take(queue: BatchScheduler, now: float = 0.0) -> list[tuple[InferenceRequest, int, int]]:
    """The slices of the next batch; it is done at once."""
    batch = queue.take_batch(now)
    if batch.slices:
        queue.finished(batch, None)
    return [(part.request, part.start, part.rows) for part in batch.slices]


def whole(*requests: InferenceRequest) -> list[tuple[InferenceRequest, int, int]]:
    return [(r, 0, r.rows) for r in requests]
