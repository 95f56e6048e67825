"""The room that all models share: bounded as a whole, and nobody is crowded out of a share of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import Lane
from inferry_server.batching.scheduler import BatchScheduler
from inferry_server.batching.shared_room import SharedRoom
from inferry_server.errors import QueueFullError, SharedRoomFullError
from inferry_server.executing.batcher import DynamicBatcher
from testkit.batchers import Observer
from testkit.scheduling import POLICY, admit, request, take


def schedulers(room: SharedRoom, count: int) -> list[BatchScheduler]:
    return [BatchScheduler(POLICY, LatencyModel(POLICY.max_batch_size), room=room) for _ in range(count)]


def test_the_first_half_is_for_whoever_comes_first_and_then_every_lane_has_its_share() -> None:
    busy, other = schedulers(SharedRoom(80), 2)
    admit(busy, request(width=40))
    told = r"this one would hold 41 bytes, its share is 10 \(setting max_total_queue_bytes\)"
    with pytest.raises(SharedRoomFullError, match=told):
        admit(busy, request(width=1))
    for lane in Lane:
        admit(other, request(width=10, lane=lane))
        with pytest.raises(SharedRoomFullError):
            admit(other, request(width=1, lane=lane))


def test_a_batch_that_is_taken_makes_room_for_other_models() -> None:
    busy, other = schedulers(SharedRoom(80), 2)
    admit(busy, request(width=40))
    with pytest.raises(QueueFullError):
        admit(other, request(width=20))
    take(busy)
    admit(other, request(width=20))


def test_a_refusal_is_counted_apart_and_says_when_to_come_again() -> None:
    [queue] = schedulers(SharedRoom(2), 1)
    with pytest.raises(SharedRoomFullError) as caught:
        admit(queue, request(width=5))
    assert caught.value.kind == "queue_full_total_bytes"
    assert caught.value.retry_after_s >= 0


def test_a_version_that_goes_gives_its_share_back() -> None:
    room = SharedRoom(80)
    batchers = [DynamicBatcher("test", [lambda inputs: inputs], POLICY, observer=Observer(), room=room) for _ in "ab"]
    assert room.share == 10
    for batcher in batchers:
        batcher.start()
    batchers[0].close(5.0)
    assert room.share == 20
    batchers[1].close(5.0)
    batchers[1].close(5.0)
    assert room.share == 40


STEPS = st.tuples(st.integers(0, 3), st.sampled_from(Lane), st.integers(0, 120), st.booleans())


@given(
    limit=st.integers(0, 400),
    count=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(Lane), st.integers(0, 120), st.booleans()), max_size=60
    ),
)
def test_all_lanes_never_hold_more_than_the_room_and_no_lane_is_refused_its_share(
    limit: int, count: int, steps: list[tuple[int, Lane, int, bool]]
) -> None:
    room = SharedRoom(limit)
    queues = schedulers(room, count)
    share = limit // 2 // (2 * count)
    for index, lane, width, takes in steps:
        queue = queues[index % count]
        if takes:
            take(queue)
            continue
        held = queue.queued(lane, 0.0).nbytes
        try:
            admit(queue, request(width=width, lane=lane))
        except SharedRoomFullError:
            assert held + width > share
        except QueueFullError:
            pass
        assert sum(each.queued(one, 0.0).nbytes for each in queues for one in Lane) <= limit
