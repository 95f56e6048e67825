"""Many callers' requests joined into larger ones: everybody gets their own answer, and the guilty their own error."""

import asyncio
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client import AsyncClient, Batching, Client, TensorSpec, errors
from inferry_client.calling import joined_threads
from inferry_client.calling.joined_tasks import TaskJoiner
from inferry_client.calling.joining import Ended, Joiner, Waiting, alone, join
from inferry_client.messages import requests
from inferry_client.testing import FakeModel, Refusal, fake_server
from testkit.waiting import SOON_S

SPECS = (TensorSpec("x", "INT64", (-1, 1)),)


def _doubling(answered: Event | None = None) -> FakeModel:
    """Doubles rows; refuses a request with a negative one; the first request waits until it may be answered."""
    first = iter([True])

    def infer(inputs: Any) -> Any:
        if answered and next(first, False):
            assert answered.wait(20)
        if (inputs["x"] < 0).any():
            import grpc

            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "a negative row")
        return {"y": inputs["x"] * 2}

    return FakeModel(infer=infer, inputs=SPECS, outputs=SPECS, max_batch_size=10, classify=lambda p: [len(p), 1])


def _x(value: int, rows: int = 1) -> dict[str, Any]:
    return {"x": np.full((rows, 1), value, np.int64)}


def _waiting(rows: int, name: str = "m") -> Waiting:
    call = requests.infer(name, _x(0, rows))
    assert call.joint
    return Waiting(call, call.joint, 1.0, 1.0, None)


def _note(joiner: Joiner, *, client_is_slower: bool) -> None:
    """Have a request of one row end."""
    joiner.add(_waiting(1))
    assert joiner.reserve()
    joiner.take(lambda _: 8)
    joiner.release(Ended(1, under_way_s=1.0, at=1.0), now=2.0 if client_is_slower else 1.001)


@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from("ab"))), st.integers(1, 10), st.booleans())
def test_every_call_leaves_once_in_order_and_no_request_is_larger_than_it_may_be(
    calls: list[tuple[int, str]], max_rows: int, client_is_slower: bool
) -> None:
    joiner = Joiner(Batching(max_rows=max_rows))
    _note(joiner, client_is_slower=client_is_slower)
    waiting = [_waiting(rows, name) for rows, name in calls]
    for each in waiting:
        joiner.add(each)
    sent: list[Waiting] = []
    while batch := joiner.take(lambda _: 8):
        assert len({each.joint for each in batch}) == 1
        assert len(batch) == 1 or sum(each.call.rows for each in batch) <= min(max_rows, 8)
        sent += batch
    assert Counter(map(id, sent)) == Counter(map(id, waiting))
    for name in "ab":
        mine = [each for each in waiting if each.call.model == (name, "")]
        assert [each for each in sent if each in mine] == mine


@given(st.lists(st.integers(0, 4)), st.integers(1, 3), st.floats(0, 10), st.floats(0, 10))
def test_every_call_leaves_as_long_as_requests_end(
    steps: list[int], max_in_flight: int, under_way_s: float, handing_out_s: float
) -> None:
    joiner, under_way, waiting = Joiner(Batching(max_rows=8, max_in_flight=max_in_flight)), deque[int](), 0
    for rows in [*steps, *[0] * (4 * len(steps) + 1)]:  # of a call that comes, or none does
        if rows:
            joiner.add(_waiting(rows))
            waiting += rows
        while joiner.reserve():
            under_way.append(sum(each.call.rows for each in joiner.take(lambda _: 8)))
            waiting -= under_way[-1]
        assert len(under_way) <= max_in_flight
        assert under_way or not waiting
        if under_way and not rows:
            joiner.release(Ended(under_way.popleft(), under_way_s, at=1.0), now=1.0 + handing_out_s)
    assert (waiting, list(under_way)) == (0, [])
    assert joiner.idle


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=40))
def test_no_more_joined_requests_are_under_way_than_may_be(most: int, steps: list[bool]) -> None:
    joiner, under_way = Joiner(Batching(max_in_flight=most)), 0
    joiner.add(_waiting(1))
    for begin in steps:
        if begin:
            assert joiner.reserve() is (under_way < most)
            under_way = min(under_way + 1, most)
        elif under_way:
            joiner.release()
            under_way -= 1


@pytest.mark.parametrize("client_is_slower", [False, True])
def test_a_client_that_is_slower_than_its_server_sends_halves(client_is_slower: bool) -> None:
    joiner = Joiner(Batching(max_rows=8, max_in_flight=3))
    _note(joiner, client_is_slower=client_is_slower)
    for _ in range(6):
        joiner.add(_waiting(1))
    assert joiner.reserve(), "nothing is under way"
    assert len(joiner.take(lambda _: 8)) == (3 if client_is_slower else 6)
    joiner.add(gone := _waiting(3))
    joiner.remove(gone)
    if not client_is_slower:
        joiner.add(_waiting(1))
        assert joiner.reserve(), "the server would wait for the next request"
        return
    joiner.add(late := _waiting(1))
    assert joiner.reserve(), "as many rows wait as are under way"
    assert len(joiner.take(lambda _: 8)) == 4
    joiner.add(_waiting(1))
    joiner.remove(late)
    assert not joiner.reserve(), "it would be a small one"


def test_a_lone_call_takes_a_place_only_where_it_meets_no_other() -> None:
    joiner = Joiner(Batching())
    assert joiner.reserve_alone()
    assert not joiner.reserve_alone()
    joiner.release()
    joiner.add(_waiting(1))
    assert not joiner.reserve_alone()


def test_what_travels_together_has_the_time_that_its_most_patient_call_has_left() -> None:
    call = requests.infer("m", _x(0))
    assert call.joint
    waiting = [Waiting(call, call.joint, timeout_s, deadline, None) for timeout_s, deadline in ((9, 9), (5, 12))]
    joined = join(waiting, now=8.0)
    assert (joined.timeout_s, joined.waited_s) == (5, 1.0)
    assert alone(waiting[0], now=8.0).waited_s == 8.0


def test_threads_get_their_own_rows_out_of_joined_requests() -> None:
    answered = Event()
    with (
        fake_server({"m": _doubling(answered)}) as server,
        Client(server.address, batching=Batching(max_rows=32, max_in_flight=1)) as client,
        ThreadPoolExecutor(40) as pool,
    ):
        futures = [pool.submit(client.infer, "m", _x(number, number % 3 + 1)) for number in range(40)]
        answered.set()
        for number, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(20).outputs["y"], _x(2 * number, number % 3 + 1)["x"])
        sizes = [request.inputs[0].shape[0] for request in server.requests("ModelInfer")]
    assert sum(sizes) == sum(number % 3 + 1 for number in range(40))
    assert max(sizes) <= 10  # the model's limit, which is below the setting
    assert len(sizes) < 40


@pytest.mark.parametrize("awaited", [False, True])
def test_only_the_guilty_call_of_a_joined_request_fails(awaited: bool) -> None:
    values = [3, -1, 5, 7, -2, 0]

    async def ask(address: str) -> list[Any]:
        async with AsyncClient(address, batching=Batching()) as client:
            return await asyncio.gather(*(client.infer("m", _x(v)) for v in values), return_exceptions=True)

    with fake_server({"m": _doubling()}) as server:
        if awaited:
            outcomes = asyncio.run(ask(server.address))
        else:
            with Client(server.address, batching=Batching()) as client, ThreadPoolExecutor(8) as pool:
                futures = [pool.submit(client.infer, "m", _x(value)) for value in values]
                outcomes = [future.exception(20) or future.result() for future in futures]
    for value, outcome in zip(values, outcomes, strict=True):
        if value < 0:
            assert isinstance(outcome, errors.InvalidRequestError)
        else:
            assert outcome.outputs["y"].item() == 2 * value


def test_tasks_that_are_ready_together_travel_together() -> None:
    async def ask(address: str) -> list[int]:
        async with AsyncClient(address, batching=Batching(max_rows=10, max_in_flight=1)) as client:
            await client.infer("m", _x(0))
            results = await asyncio.gather(*(client.infer("m", _x(number)) for number in range(30)))
            pictures = await asyncio.gather(*(client.classify("m", bytes(number + 1)) for number in range(8)))
            assert [picture.images[0][0].probability for picture in pictures] == [1, *range(2, 9)]
            return [result.outputs["y"].item() for result in results]

    with fake_server({"m": _doubling()}) as server:
        assert asyncio.run(ask(server.address)) == [2 * number for number in range(30)]
        assert len(server.requests("ModelInfer")) == 1 + 3
        assert len(server.requests("Classify")) == 1


def test_each_task_waits_for_as_long_as_it_was_given_and_no_longer() -> None:
    async def ask() -> list[Any]:
        session = Client("127.0.0.1:1")._session
        answered = asyncio.Event()

        async def send(call: Any) -> Any:
            await answered.wait()
            return call

        joiner = TaskJoiner(Batching(max_rows=1), session, send)

        def call(timeout_s: float) -> Any:
            return requests.infer("m", _x(1), timeout_s=timeout_s)

        patient = asyncio.create_task(joiner.run(call(SOON_S)))
        await asyncio.sleep(0)
        late = await asyncio.gather(*(joiner.run(call(s)) for s in (0.02, 0.01, 0.03)), return_exceptions=True)
        late += await asyncio.gather(joiner.run(call(0.01)), return_exceptions=True)
        cancelled = asyncio.create_task(joiner.run(call(0.01)))
        await asyncio.sleep(0)
        cancelled.cancel()
        answered.set()
        assert (await patient).timeout_s == SOON_S
        assert not joiner._unanswered
        return late

    late = asyncio.run(ask())
    assert [type(each) for each in late] == [errors.DeadlineExceededError] * 4
    assert [str(each).partition(" within ")[2].split()[0] for each in late] == ["0.02", "0.01", "0.03", "0.01"]


def test_a_model_without_a_batch_axis_and_calls_with_an_id_travel_alone() -> None:
    vector = FakeModel(infer=lambda inputs: {"y": inputs["x"]}, inputs=(TensorSpec("x", "INT64", (3,)),))

    async def ask(address: str) -> None:
        async with AsyncClient(address, batching=Batching()) as client:
            await asyncio.gather(*(client.infer("v", {"x": np.arange(3)}) for _ in range(5)))
            named = await asyncio.gather(*(client.infer("m", _x(1), request_id=f"r{n}") for n in range(5)))
            assert [result.request_id for result in named] == ["r0", "r1", "r2", "r3", "r4"]

    with fake_server({"m": _doubling(), "v": vector}) as server:
        asyncio.run(ask(server.address))
        assert len(server.requests("ModelInfer")) == 10
        assert len(server.requests("DescribeModel")) == 1  # of `v`, once for all its callers


def test_a_caller_whose_time_is_up_leaves_and_the_others_are_answered() -> None:
    answered = Event()
    with (
        fake_server({"m": _doubling(answered)}) as server,
        Client(server.address, batching=Batching(max_in_flight=1)) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        first = pool.submit(client.infer, "m", _x(1))
        while not server.requests("ModelInfer"):
            pass
        with pytest.raises(errors.DeadlineExceededError, match=r"within 0\.05 s"):
            client.infer("m", _x(2), timeout_s=0.05)
        third = pool.submit(client.infer, "m", _x(3))
        answered.set()
        assert first.result(20).outputs["y"].item() == 2
        assert third.result(20).outputs["y"].item() == 6
    assert [request.raw_input_contents[0][0] for request in server.requests("ModelInfer")] == [1, 3]


def test_a_patient_call_keeps_no_impatient_one_beyond_its_time() -> None:
    answered = Event()
    with (
        fake_server({"m": _doubling(answered)}) as server,
        Client(server.address, batching=Batching(max_in_flight=2)) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        first = pool.submit(client.infer, "m", _x(1))
        while not server.requests("ModelInfer"):
            pass
        impatient = [pool.submit(client.infer, "m", _x(2), timeout_s=0.2) for _ in range(3)]
        patient = [pool.submit(client.infer, "m", _x(3)) for _ in range(3)]
        for future in impatient:  # whoever's request they travel in
            error = future.exception(10)
            assert isinstance(error, errors.DeadlineExceededError) or future.result().outputs["y"].item() == 4
        answered.set()
        assert [future.result(20).outputs["y"].item() for future in (first, *patient)] == [2, 6, 6, 6]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_reply_that_has_other_rows_than_were_joined_is_nobodys(awaited: bool) -> None:
    def mean(inputs: Any) -> Any:
        return {"y": inputs["x"].mean(axis=0, keepdims=True).astype(np.int64)}

    def ask_together(address: str) -> list[Any]:
        with Client(address, batching=Batching(max_in_flight=1)) as client, ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda value: client.infer("m", _x(value)), range(8)))

    async def ask(address: str) -> list[Any]:
        async with AsyncClient(address, batching=Batching()) as client:
            return await asyncio.gather(*(client.infer("m", _x(value)) for value in range(8)))

    with fake_server({"m": FakeModel(infer=mean, inputs=SPECS)}) as server:
        results = asyncio.run(ask(server.address)) if awaited else ask_together(server.address)
    assert [result.outputs["y"].item() for result in results] == list(range(8))


@pytest.mark.parametrize("awaited", [False, True])
def test_asking_what_may_be_joined_takes_no_longer_than_the_call_may(awaited: bool, silent_address: str) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(silent_address, timeout_s=3 * SOON_S, batching=Batching()) as client:
            calls = [client.infer("m", _x(1), timeout_s=0.2) for _ in range(3)]
            return await asyncio.gather(*calls, return_exceptions=True)

    began = time.monotonic()
    if awaited:
        outcomes = asyncio.run(ask())
    else:
        with Client(silent_address, timeout_s=3 * SOON_S, batching=Batching()) as client, ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(client.infer, "m", _x(1), timeout_s=0.2) for _ in range(3)]
            outcomes = [future.exception(30) for future in futures]
    assert time.monotonic() - began < SOON_S  # the client's own timeout is longer
    assert {type(outcome) for outcome in outcomes} <= {errors.DeadlineExceededError, errors.ServerUnavailableError}


def test_closing_ends_the_calls_that_wait_to_be_joined() -> None:
    answered = Event()
    with fake_server({"m": _doubling(answered)}) as server, ThreadPoolExecutor(8) as pool:
        client = Client(server.address, batching=Batching(max_in_flight=1))
        futures = [pool.submit(client.infer, "m", _x(1)) for _ in range(8)]
        while not server.requests("ModelInfer"):
            pass
        client.close()
        client.close()
        assert {type(future.exception(20)) for future in futures} == {errors.RequestCancelledError}
        answered.set()


def test_no_more_threads_send_than_requests_may_be_under_way_and_idle_ones_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_threads, "_IDLE_S", 0.01)

    def senders() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "joined-requests"]

    with (
        fake_server({"m": _doubling()}) as server,
        Client(server.address, batching=Batching(max_rows=2)) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        known = set(senders())
        for result in pool.map(lambda value: client.infer("m", _x(value)), range(200)):
            assert result.outputs["y"].shape == (1, 1)
            assert len(set(senders()) - known) <= 2
        for thread in set(senders()) - known:
            thread.join(10)
        assert not set(senders()) - known
        assert client.infer("m", _x(4)).outputs["y"].item() == 8


def test_the_child_of_a_fork_waits_for_none_of_its_parents_threads() -> None:
    with (
        fake_server({"m": _doubling()}) as server,
        Client(server.address, batching=Batching(max_in_flight=1)) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        joiner = client._joined(Batching(max_in_flight=1))
        joiner._idle.append(threading.Lock())  # as a fork leaves them: a sender that is no more, a request under way
        assert joiner._joiner.reserve_alone()
        client._in_child()
        results = pool.map(lambda value: client.infer("m", _x(value)).outputs["y"].item(), range(40))
        assert list(results) == [2 * value for value in range(40)]


@pytest.mark.parametrize(
    ("name", "value"), [("max_rows", 0), ("max_in_flight", 0), ("max_rows", 10**6), ("max_rows", 2.5)]
)
def test_a_batching_that_makes_no_sense_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; expected 1 to"):
        Batching(**{name: value})
