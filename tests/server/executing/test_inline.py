"""Short batches on the thread that reads requests: the test is that thread, and says when it has time."""

import queue
import random
import threading
import time

import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel, ShapeLatencies
from inferry_server.batching.ownership import Holder
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InferenceError
from inferry_server.executing.core_turns import ComputeGate
from inferry_server.executing.inline import InlineWork
from testkit.batchers import Reply, ScriptedModel, request, submit, values
from testkit.inline_batches import INLINE_BATCH_S, Threads, elsewhere, reading
from testkit.waiting import SOON_S, wait_until


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


@pytest.mark.parametrize("seed", range(20))
def test_whoever_submits_and_whenever_there_is_time_every_request_gets_one_reply(seed: int) -> None:
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
