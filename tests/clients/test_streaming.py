"""Streams of requests: results in order, as soon as they are there, and no more taken than may be."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from threading import Event
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client import AsyncClient, Client, RetryPolicy, errors
from inferry_client.calling.exchange import Exchange, Streamed
from inferry_client.calling.streaming import stream_in_tasks, stream_in_threads
from inferry_client.messages import requests
from inferry_client.messages.streams import streamed_rpc
from inferry_client.testing import FakeModel, Refusal, fake_server
from inferry_proto import open_inference_pb2
from testkit import brightness_model
from testkit.scripted_server import serving

PICTURES = [brightness_model.picture(level) for level in (0, 255) * 20]


def pixels(count: int = 40) -> list[dict[str, Any]]:
    return [{"image": np.full((1, 8, 8, 1), level, np.uint8)} for level in (0, 255) * (count // 2)]


def stream_of(address: str, items: Any, *, awaited: bool, model: str = "brightness", **settings: Any) -> Iterator[Any]:
    """Results of both clients alike; those of the asynchronous one all at once."""
    window = settings.pop("window", 7)
    timeout_s = settings.pop("timeout_s", 10.0)
    retries = RetryPolicy(initial_backoff_s=0.001)
    if not awaited:
        with Client(address, timeout_s=timeout_s, retries=retries) as client:
            yield from client.stream(model, items, window=window, **settings)
        return

    async def collect(into: list[Any]) -> None:
        async with AsyncClient(address, timeout_s=timeout_s, retries=retries) as client:
            async for result in client.stream(model, items, window=window, **settings):
                into.append(result)  # noqa: PERF401 - what came before an error counts

    results: list[Any] = []
    try:
        asyncio.run(collect(results))
    finally:
        yield from results


def brightest(results: Iterator[Any]) -> list[int]:
    return [int(result.outputs["probabilities"].argmax()) for result in results]


both = pytest.mark.parametrize("awaited", [False, True])


@both
def test_pictures_and_tensors_travel_in_order_on_one_bidirectional_rpc(awaited: bool) -> None:
    with serving(brightness_model.scripts()) as server:
        results = list(stream_of(server.address, PICTURES, awaited=awaited, top_k=2, request_id="mine"))
        assert [result.images[0][0].label for result in results] == ["dark", "bright"] * 20
        assert all(len(result.images[0]) == 2 and result.request_id == "mine" for result in results)
        assert brightest(stream_of(server.address, pixels(), awaited=awaited)) == [0, 2] * 20
        assert len(server.requests("ClassifyStream")) == len(server.requests("ModelStreamInfer")) == 40
        assert not server.requests("Classify") + server.requests("ModelInfer")


def test_items_may_come_asynchronously() -> None:
    async def arriving() -> AsyncIterator[bytes]:
        for picture in PICTURES:
            yield picture

    with serving(brightness_model.scripts()) as server:
        labels = [each.images[0][0].label for each in stream_of(server.address, arriving(), awaited=True)]
        assert labels == ["dark", "bright"] * 20


@both
def test_a_refused_item_is_asked_again_alone_while_the_others_go_on(awaited: bool) -> None:
    with serving(brightness_model.scripts()) as server:
        server.refuse("ModelInfer", "RESOURCE_EXHAUSTED", times=5)
        assert brightest(stream_of(server.address, pixels(), awaited=awaited)) == [0, 2] * 20
        assert len(server.requests("ModelStreamInfer")) == 40
        assert server.requests("ModelInfer")


@both
def test_what_a_broken_stream_left_is_asked_again_and_a_new_one_goes_on(awaited: bool) -> None:
    seen = iter(range(1000))

    def breaking(request: Any) -> Any:
        if next(seen) % 11 == 10:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        reply = open_inference_pb2.ModelStreamInferResponse()
        reply.infer_response.MergeFrom(brightness_model.scripts()["ModelInfer"](request))  # type: ignore[arg-type]
        return reply

    with serving(brightness_model.scripts() | {"ModelStreamInfer": breaking}) as server:
        assert brightest(stream_of(server.address, pixels(), awaited=awaited)) == [0, 2] * 20
        assert 0 < len(server.requests("ModelInfer")) < 40


@both
def test_a_server_without_the_bidirectional_rpc_is_asked_call_by_call(awaited: bool) -> None:
    def unknown(_: Any) -> Any:
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "no such method")

    with serving(brightness_model.scripts() | {"ModelStreamInfer": unknown}) as server:
        assert brightest(stream_of(server.address, pixels(), awaited=awaited, window=4)) == [0, 2] * 20
        assert len(server.requests("ModelInfer")) == 40
        assert len(server.requests("ModelStreamInfer")) <= 2


@both
def test_a_server_that_replies_out_of_order_gives_nobody_anothers_reply(awaited: bool) -> None:
    def swapped(answer_stream: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        replies = answer_stream(*arguments)
        for first in replies:
            second = next(replies, None)
            if second is not None:
                yield second
            yield first

    with serving(brightness_model.scripts()) as server:
        server.answer_stream = partial(swapped, server.answer_stream)  # type: ignore[method-assign]
        assert brightest(stream_of(server.address, pixels(), awaited=awaited)) == [0, 2] * 20


@both
def test_an_invalid_item_is_named_in_its_place(awaited: bool) -> None:
    items = [*pixels(4), {"image": np.zeros((1, 3), np.uint8)}, *pixels(4)]
    with serving(brightness_model.scripts()) as server:
        answer = server.scripts["ModelInfer"]

        def strict(request: Any) -> Any:
            if len(request.inputs[0].shape) != 4:
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "image has shape [1, 3]")
            return answer(request)

        server.scripts["ModelInfer"] = strict
        results = stream_of(server.address, items, awaited=awaited, window=16)
        assert [next(results).outputs["probabilities"].argmax() for _ in range(4)] == [0, 2, 0, 2]
        with pytest.raises(errors.InvalidRequestError, match=r"image has shape \[1, 3\]"):
            next(results)


@both
def test_an_item_of_more_rows_than_the_server_takes_is_cut(awaited: bool) -> None:
    model = FakeModel(infer=lambda inputs: {"y": inputs["x"] + 1}, max_batch_size=4)
    items = [{"x": np.full((rows, 1), rows, np.int64)} for rows in (1, 9, 2)]
    with fake_server({"m": model}) as server:
        results = list(stream_of(server.address, items, awaited=awaited, model="m"))
    assert [result.outputs["y"].ravel().tolist() for result in results] == [[2], [10] * 9, [3] * 2]


@both
def test_silence_ends_the_stream_within_the_items_time(awaited: bool) -> None:
    over = Event()

    def silent(_: Any) -> Any:
        over.wait(20)
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "too late")

    with serving(brightness_model.scripts() | {"ModelInfer": silent}) as server:
        with pytest.raises(errors.DeadlineExceededError, match=r"did not run model 'brightness' within 0.2 s"):
            list(stream_of(server.address, pixels(4), awaited=awaited, timeout_s=0.2))
        over.set()


def test_a_slow_taker_holds_the_items_back_and_a_closed_stream_takes_no_more() -> None:
    taken: list[int] = []
    fourth = Event()

    def items() -> Iterator[Any]:
        for number, item in enumerate(pixels(100)):
            taken.append(number)
            if len(taken) == 4:
                fourth.set()
            yield item

    with serving(brightness_model.scripts()) as server, Client(server.address) as client:
        results = client.stream("brightness", items(), window=3)
        assert next(results).outputs["probabilities"].argmax() == 0
        assert fourth.wait(20)  # one is given, three are answered or under way
        assert len(taken) <= 4
        results.close()  # type: ignore[attr-defined]
        assert len(taken) <= 5


@given(st.lists(st.sampled_from(["send", "first", "last", "refuse", "unnamed"])))
def test_every_request_of_a_stream_is_answered_or_left_once(steps: list[str]) -> None:
    sent: list[Streamed] = []
    waiting: list[tuple[str, Streamed]] = []
    left: list[Streamed] = []
    call = requests.infer("m", {"x": np.zeros((1, 1), np.int64)})
    exchange = Exchange(streamed_rpc(call), address="here", answered=lambda: None)
    for step in steps:
        if step == "send":
            streamed = Streamed(requests.infer("m", {}), 0.0, _Future(), f"own {len(sent)}")
            message: Any = exchange.send(streamed)
            sent.append(streamed)
            waiting.append((message.id, streamed))
        elif waiting:
            number, streamed = waiting.pop(-1 if step == "last" else 0)
            reply = open_inference_pb2.ModelStreamInferResponse()
            reply.infer_response.id = "" if step == "unnamed" else number
            reply.error_message = "full" if step == "refuse" else ""
            refused = exchange.settle(reply)
            assert refused is (streamed if step == "refuse" else None)
            left += [streamed] * (step == "refuse")
    unanswered = exchange.end()
    assert unanswered == [streamed for _, streamed in waiting]
    for streamed in sent:
        alone = streamed in left or streamed in unanswered
        assert streamed.alone == alone
        assert streamed.future.done() != alone
        own: Any = streamed.call.request
        assert own.id == streamed.request_id if alone else streamed.future.result.request_id == streamed.request_id


def test_a_reply_to_no_request_breaks_the_stream() -> None:
    call = requests.infer("m", {"x": np.zeros((1, 1), np.int64)})
    exchange = Exchange(streamed_rpc(call), address="here", answered=lambda: None)
    reply = open_inference_pb2.ModelStreamInferResponse()
    reply.infer_response.id = "7"
    exchange.send(Streamed(call, 0.0, _Future(), ""))
    with pytest.raises(errors.ReplyError, match="for the request '7', which does not wait"):
        exchange.settle(reply)


class _Future:
    result: Any = None

    def set_result(self, result: Any) -> None:
        self.result = result

    def done(self) -> bool:
        return self.result is not None


def _at_once(ask: Callable[[Any], Any]) -> Callable[[Any], Callable[[], Any]]:
    return lambda item: partial(ask, item)


def test_no_more_items_are_taken_than_the_window() -> None:
    taken: list[int] = []
    several = Event()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            if len(taken) == 5:
                several.set()
            yield number

    results = stream_in_threads(items(), _at_once(lambda number: number * 2), window=4)
    assert next(results) == 0
    assert several.wait(20)  # there is room for the fifth since the first has its result
    assert len(taken) == 5
    assert list(results) == [2 * number for number in range(1, 100)]


def test_a_result_does_not_wait_for_the_next_item() -> None:
    camera: queue.Queue[int | None] = queue.Queue()
    results = stream_in_threads(iter(camera.get, None), _at_once(lambda number: -number), window=16)
    for number in range(3):
        camera.put(number)
        assert next(results) == -number
    camera.put(None)
    assert list(results) == []


def test_what_goes_wrong_is_raised_in_its_place_and_ends_the_stream() -> None:
    def items() -> Iterator[int]:
        yield from (1, 0, 2)

    results = stream_in_threads(items(), _at_once(lambda number: 1 // number), window=4)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the camera is gone")

    results = stream_in_threads(broken(), _at_once(lambda number: number), window=4)
    assert next(results) == 1
    with pytest.raises(OSError, match="the camera is gone"):
        next(results)


def test_tasks_take_no_more_than_the_window_and_end_with_the_stream() -> None:
    under_way = most = 0

    async def answer(number: int) -> int:
        nonlocal under_way
        await asyncio.sleep(0)
        under_way -= 1
        if number == 30:
            raise errors.InvalidRequestError("wrong")
        return number

    async def ask(number: int) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        return partial(answer, number)

    async def run() -> list[int]:
        got: list[int] = []
        try:
            async for result in stream_in_tasks(range(100), ask, window=5):
                got.append(result)  # noqa: PERF401 - what came before the error counts
        except errors.InvalidRequestError:
            return got
        return []

    assert asyncio.run(run()) == list(range(30))
    assert most <= 5


@pytest.mark.parametrize("items", [5, "ab", b"ab", {"x": np.zeros(1)}, None])
@both
def test_items_that_are_not_several_are_refused(items: Any, awaited: bool) -> None:
    client: Any = (AsyncClient if awaited else Client)("127.0.0.1:1")
    with pytest.raises(errors.InvalidRequestError, match=r"items is a .*; expected an iterator of pictures"):
        client.stream("mnist", items)


@pytest.mark.parametrize("window", [0, 1025, 1.5, "3"])
@both
def test_a_window_that_is_none_is_refused(window: Any, awaited: bool) -> None:
    client: Any = (AsyncClient if awaited else Client)("127.0.0.1:1")
    with pytest.raises(ValueError, match=f"window is {window!r}; expected 1 to 1024"):
        client.stream("mnist", [], window=window)
