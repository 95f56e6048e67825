"""Many callers' requests joined into larger ones: everybody gets their own answer, and the guilty their own error."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client import AsyncClient, Batching, Client, TensorSpec, errors
from inferry_client.calling.joining import Joiner, Waiting
from inferry_client.messages import requests
from inferry_client.testing import FakeModel, Refusal, fake_server

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
    return Waiting(call, call.joint(), 1.0, lambda: None)


@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from("ab"))), st.integers(1, 10))
def test_every_call_leaves_once_in_order_and_no_request_is_larger_than_it_may_be(
    calls: list[tuple[int, str]], max_rows: int
) -> None:
    joiner = Joiner(Batching(max_rows=max_rows))
    waiting = [_waiting(rows, name) for rows, name in calls]
    for each in waiting:
        joiner.add(each)
    sent: list[Waiting] = []
    while batch := joiner.take(lambda _: 8):
        assert len({each.joint.key for each in batch}) == 1
        assert len(batch) == 1 or sum(each.joint.rows for each in batch) <= min(max_rows, 8)
        assert not any(joiner.waits(each) for each in batch)
        sent += batch
    assert Counter(map(id, sent)) == Counter(map(id, waiting))
    for name in "ab":
        mine = [each for each in waiting if each.joint.key[1] == name]  # type: ignore[index]
        assert [each for each in sent if each in mine] == mine


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=40))
def test_no_more_joined_requests_are_under_way_than_may_be(most: int, steps: list[bool]) -> None:
    joiner, under_way = Joiner(Batching(max_in_flight=most)), 0
    for begin in steps:
        if begin:
            assert joiner.reserve() is (under_way < most)
            under_way = min(under_way + 1, most)
        elif under_way:
            joiner.release()
            under_way -= 1


def test_the_next_to_lead_is_the_first_that_does_not_lead_already() -> None:
    joiner, calls = Joiner(Batching()), [_waiting(1, name) for name in "aabb"]
    for each in calls:
        joiner.add(each)
    calls[0].leads = calls[2].leads = True
    assert joiner.next_leader() is calls[1]
    joiner.remove(calls[1])
    assert joiner.next_leader() is calls[3]
    calls[3].leads = True
    assert joiner.next_leader() is None


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
        async with AsyncClient(address, batching=Batching(max_rows=10)) as client:
            await client.infer("m", _x(0))
            results = await asyncio.gather(*(client.infer("m", _x(number)) for number in range(30)))
            pictures = await asyncio.gather(*(client.classify("m", bytes(number + 1)) for number in range(8)))
            assert [picture.images[0][0].probability for picture in pictures] == [1, *range(2, 9)]
            return [result.outputs["y"].item() for result in results]

    with fake_server({"m": _doubling()}) as server:
        assert asyncio.run(ask(server.address)) == [2 * number for number in range(30)]
        assert len(server.requests("ModelInfer")) == 1 + 3
        assert len(server.requests("Classify")) == 1


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


@pytest.mark.parametrize(("name", "value"), [("max_rows", 0), ("max_in_flight", 0), ("max_rows", 10**6)])
def test_a_batching_that_makes_no_sense_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; expected 1 to"):
        Batching(**{name: value})
