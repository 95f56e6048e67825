"""Results in the order of an iterator's items, a bounded number of them under way."""

import asyncio
import queue
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any, TypeVar

from inferry_client.errors import InvalidSettingError
from inferry_client.limits import check_whole_number

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WINDOW = 1024


def check_window(window: int) -> None:
    """See that a window is one.

    Raises:
        InvalidSettingError: not in its range.
    """
    check_whole_number("window", window, 1, MAX_WINDOW)


def check_items(items: Any, *kinds: type) -> None:
    """See that a stream's items are several: not one text, one file, or one mapping.

    Raises:
        InvalidSettingError: they are not.
    """
    if isinstance(items, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(items, kinds):
        raise InvalidSettingError(
            f"items is a {type(items).__name__}; expected an iterator of pictures, or of arrays by their inputs' names"
        )


def stream_in_threads(
    items: Iterable[Item], ask: Callable[[Item], Callable[[], Result]], *, window: int
) -> Iterator[Result]:
    """The results in order. A thread takes the items, so that a result does not wait for the next of them.

    An item is taken when fewer than `window` of those taken are without their result: back pressure
    reaches the iterator. What an item raises, or the iterator, is raised in its place and ends the stream.

    Args:
        items: to be asked.
        ask: begins to ask an item, and gives what waits for its result.
        window: items under way, or answered and not yet given.
    """
    check_window(window)
    room = threading.Semaphore(window)
    stopped = threading.Event()
    asked: queue.SimpleQueue[Callable[[], Result] | None] = queue.SimpleQueue()

    def take() -> None:
        try:
            iterator = iter(items)
            while room.acquire() and not stopped.is_set():
                asked.put(ask(next(iterator)))
        except StopIteration:
            asked.put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the results are taken
            asked.put(_raising(error))

    threading.Thread(target=take, name="stream-items", daemon=True).start()
    try:
        while (wait := asked.get()) is not None:
            result = wait()
            room.release()
            yield result
    finally:
        stopped.set()
        room.release()


async def stream_in_tasks(
    items: Iterable[Item] | AsyncIterable[Item],
    ask: Callable[[Item], Awaitable[Callable[[], Awaitable[Result]]]],
    *,
    window: int,
) -> AsyncGenerator[Result, None]:
    """What `stream_in_threads` does, in tasks; the items may come from an asynchronous iterator."""
    check_window(window)
    room = asyncio.Semaphore(window)
    asked: asyncio.Queue[Callable[[], Awaitable[Result]] | None] = asyncio.Queue()

    async def take() -> None:
        iterator = _each(items)
        try:
            while await room.acquire():
                asked.put_nowait(await ask(await anext(iterator)))
        except StopAsyncIteration:
            asked.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - it is raised where the results are taken
            asked.put_nowait(_raising(error))

    taking = asyncio.ensure_future(take())
    try:
        while (wait := await asked.get()) is not None:
            result = await wait()
            room.release()
            yield result
    finally:
        taking.cancel()


def _raising(error: BaseException) -> Callable[[], Any]:
    def wait() -> Any:
        raise error

    return wait


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
