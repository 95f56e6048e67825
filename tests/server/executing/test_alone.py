"""A model that does not answer row by row after all: its requests run alone from the first batch that shows it."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.scheduler import BatchScheduler
from inferry_server.errors import InferenceError
from inferry_server.executing.batcher import DynamicBatcher
from testkit.batchers import Observer, batching, request, values
from testkit.waiting import SOON_S

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=16, max_queue_size=64, max_queue_bytes=1 << 20)


def detections(inputs: Arrays) -> Arrays:
    """As many rows as the values say, one after the other: 2 is found twice, 0 not at all; below 0 it fails."""
    x = inputs["x"]
    if (x < 0).any():
        raise InferenceError("negative")
    return {"y": np.repeat(x, x[:, 0].astype(int), axis=0)}


def alone(*asked: float) -> list[float]:
    return [value for value in asked for _ in range(int(value))]


COUNTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), max_size=8)


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), max_size=8), COUNTS)
@settings(max_examples=50, deadline=None)
def test_every_request_gets_what_it_gets_alone_from_the_batch_on_that_has_other_rows(
    together: list[list[float]], later: list[list[float]]
) -> None:
    observer = Observer()
    batcher = DynamicBatcher("test", [detections], POLICY, observer=observer)
    asked = [[3.0], *together]  # with none below 1, the first batch has too many rows whoever is in it
    first = [request(*rows) for rows in asked]
    for one, _ in first:
        batcher.submit(one)  # before it starts, so that they ride together
    batcher.start()
    try:
        assert [values(reply.outcome()) for _, reply in first] == [alone(*rows) for rows in asked]
        second = [request(*rows) for rows in later]
        for one, _ in second:
            batcher.submit(one)
        assert [values(reply.outcome()) for _, reply in second] == [alone(*rows) for rows in later]
    finally:
        assert batcher.close(SOON_S)
    assert len(observer.ended) == 1
    assert "expected a row for each" in observer.ended[0]
    assert (observer.done, observer.failed) == (len(asked) + len(later), 0)


def test_what_fails_alone_is_the_only_one_to_fail() -> None:
    batcher = DynamicBatcher("test", [detections], POLICY, observer=Observer())
    (good, one), (bad, two), (late, three) = request(2), request(-1), request(1, 0, 1)
    for queued in (good, bad):
        batcher.submit(queued)
    batcher.start()
    try:
        assert values(one.outcome()) == [2, 2]
        assert isinstance(two.outcome(), InferenceError)
        batcher.submit(late)
        assert values(three.outcome()) == [1, 1]
    finally:
        assert batcher.close(SOON_S)


def test_a_large_request_that_was_cut_is_computed_anew_and_whole() -> None:
    sizes: list[int] = []

    def run(inputs: Arrays) -> Arrays:
        sizes.append(len(inputs["x"]))
        return detections(inputs)

    with batching(run) as (batcher, _):
        queued, reply = request(1, 1, 1, 1, 2, 0, 3, 1, 1)  # its first part has as many rows as were asked
        batcher.submit(queued)
        assert values(reply.outcome()) == alone(1, 1, 1, 1, 2, 0, 3, 1, 1)
    assert sizes[0] == 4
    assert 9 in sizes


def test_a_batch_that_was_under_way_when_another_showed_it_is_computed_again_request_by_request() -> None:
    """Two pictures with two and no detections have two rows together, as two rows should."""
    begun = {3: threading.Event(), 1: threading.Event(), 2: threading.Event()}
    go = {value: threading.Event() for value in begun}

    def gated(inputs: Arrays) -> Arrays:
        first = int(inputs["x"][0, 0])
        if first in begun:
            begun[first].set()
            assert go[first].wait(SOON_S)
        return detections(inputs)

    with batching(gated, gated, max_batch_size=2) as (batcher, observer):
        asked = {value: request(value) for value in (3, 1, 2, 0)}
        for value in (3, 1):  # one on each instance
            batcher.submit(asked[value][0])
            assert begun[value].wait(SOON_S)
        for value in (2, 0):
            batcher.submit(asked[value][0])
        go[1].set()
        assert begun[2].wait(SOON_S)  # with 0 beside it
        go[3].set()
        assert values(asked[3][1].outcome()) == [3, 3, 3]
        go[2].set()
        assert [values(asked[value][1].outcome()) for value in (1, 2, 0)] == [[1], [2, 2], []]
    assert len(observer.ended) == 1


def test_a_lone_request_is_neither_cut_nor_padded() -> None:
    whole: list[int] = []

    def run_whole(inputs: Arrays) -> Arrays:
        whole.append(len(inputs["x"]))
        return detections(inputs)

    batcher = DynamicBatcher(
        "test", [detections], POLICY, observer=Observer(), whole=[run_whole], pad_to=lambda rows: -(-rows // 4) * 4
    )
    batcher.start()
    try:
        for asked in ((3.0,), (1.0, 2.0, 1.0), (2.0,) * 6):
            queued, reply = request(*asked)
            batcher.submit(queued)
            assert values(reply.outcome()) == alone(*asked)
    finally:
        assert batcher.close(SOON_S)
    assert whole == [1, 3, 6]


@pytest.mark.parametrize("batch_rows", [2, 4])
def test_a_scheduler_that_serves_alone_hands_out_one_whole_request_at_a_time_and_waits_for_no_more(
    batch_rows: int,
) -> None:
    policy = BatchingPolicy(
        max_batch_size=batch_rows, max_request_rows=16, max_queue_size=64, max_queue_bytes=1 << 20,
        max_queue_delay_s=1.0, small_batch_size=2,
    )  # fmt: skip
    scheduler = BatchScheduler(policy, LatencyModel(2))
    asked = [request(*[1.0] * rows)[0] for rows in (5, 1, 1, 16)]
    for one in asked:
        scheduler.admit(one, 0.0)
    cut = scheduler.take_batch(0.0)
    assert cut.rows == batch_rows
    scheduler.serve_alone()
    for one in asked:
        waiting = scheduler.next_batch(0.0)
        assert waiting is not None
        assert waiting.wait_s == 0
        taken = scheduler.take_batch(0.0)
        [part] = taken.slices
        assert (part.request, part.start, part.rows, taken.rows) == (one, 0, one.rows, one.rows)
    assert scheduler.rows == 0
