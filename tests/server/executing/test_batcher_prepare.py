"""A batcher's threads prepare their instances before they take requests."""

import threading

import numpy as np
import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.executing.batcher import DynamicBatcher
from testkit.batchers import Observer

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=4, max_queue_size=8, max_queue_bytes=1 << 20)


def run(inputs: Arrays) -> Arrays:
    return {"y": np.asarray(inputs["x"])}


def test_each_instance_is_prepared_once_by_its_own_thread_before_start_returns() -> None:
    prepared: dict[int, str] = {}

    def prepare(index: int) -> None:
        prepared[index] = threading.current_thread().name

    batcher = DynamicBatcher(
        "m-1", [run, run], POLICY, observer=Observer(), prepare=[lambda: prepare(0), lambda: prepare(1)]
    )
    batcher.start()
    assert prepared == {0: "batcher-m-1-0", 1: "batcher-m-1-1"}
    assert batcher.close(5)


def test_what_one_meets_is_raised_by_start_and_no_thread_stays() -> None:
    def fail() -> None:
        raise ValueError("no graph")

    before = threading.active_count()
    batcher = DynamicBatcher("m-1", [run, run], POLICY, observer=Observer(), prepare=[lambda: None, fail])
    with pytest.raises(ValueError, match="no graph"):
        batcher.start()
    assert batcher.close(5)
    assert threading.active_count() == before
