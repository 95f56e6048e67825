"""Streams of requests: results in order, as soon as they are there, and no more taken than may be."""

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from threading import Event
from typing import Any

import numpy as np
import pytest

from inferry_client import AsyncClient, Client, errors
from inferry_client.calling.streaming import stream_in_tasks, stream_in_threads
from testkit import brightness_model
from testkit.scripted_server import serving

PICTURES = [brightness_model.picture(level) for level in (0, 255) * 20]


def test_pictures_and_tensors_stream_through_both_clients_in_order() -> None:
    pixels = [{"image": np.full((1, 8, 8, 1), level, np.uint8)} for level in (0, 255) * 20]

    async def arriving() -> AsyncIterator[bytes]:
        for picture in PICTURES:
            yield picture

    async def ask(address: str) -> list[str]:
        async with AsyncClient(address) as client:
            labels = [r.images[0][0].label async for r in client.stream("brightness", arriving(), window=7)]
            rows = [r.outputs["probabilities"].argmax() async for r in client.stream("brightness", pixels)]
            assert rows == [0, 2] * 20
            return labels

    with serving(brightness_model.scripts()) as server:
        with Client(server.address) as client:
            results = list(client.stream("brightness", PICTURES, window=7, top_k=2))
            assert [result.images[0][0].label for result in results] == ["dark", "bright"] * 20
            assert all(len(result.images[0]) == 2 for result in results)
            rows = [result.outputs["probabilities"].argmax() for result in client.stream("brightness", pixels)]
            assert rows == [0, 2] * 20
        assert asyncio.run(ask(server.address)) == ["dark", "bright"] * 20


def test_no_more_items_are_taken_than_the_window() -> None:
    taken: list[int] = []
    several = Event()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            if len(taken) == 5:
                several.set()
            yield number

    results = stream_in_threads(items(), lambda number: number * 2, window=4)
    assert next(results) == 0
    assert several.wait(20)  # the fifth is taken to be sent when there is room
    assert len(taken) <= 6
    assert list(results) == [2 * number for number in range(1, 100)]


def test_a_result_does_not_wait_for_the_next_item() -> None:
    camera: queue.Queue[int | None] = queue.Queue()
    results = stream_in_threads(iter(camera.get, None), lambda number: -number, window=16)
    for number in range(3):
        camera.put(number)
        assert next(results) == -number
    camera.put(None)
    assert list(results) == []


def test_what_goes_wrong_is_raised_in_its_place_and_ends_the_stream() -> None:
    def items() -> Iterator[int]:
        yield from (1, 0, 2)

    results = stream_in_threads(items(), lambda number: 1 // number, window=4)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the camera is gone")

    results = stream_in_threads(broken(), lambda number: number, window=4)
    assert next(results) == 1
    with pytest.raises(OSError, match="the camera is gone"):
        next(results)


def test_tasks_take_no_more_than_the_window_and_end_with_the_stream() -> None:
    under_way = most = 0

    async def ask(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        if number == 30:
            raise errors.InvalidRequestError("wrong")
        return number

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


@pytest.mark.parametrize("window", [0, 1025])
def test_a_window_that_is_none_is_refused(window: int) -> None:
    results: Any = stream_in_threads([1], lambda number: number, window=window)
    with pytest.raises(ValueError, match=f"window is {window}; expected 1 to 1024"):
        next(results)
