"""Streams: requests of an iterator in, results out in their order, a bounded number under way."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WINDOW = 1024
_LOOK_AGAIN_S = 0.1  # for the end of the stream, while the window is full


def check_window(window: int) -> None:
    """See that a window is one.

    Raises:
        ValueError: not in its range.
    """
    if not 1 <= window <= MAX_WINDOW:
        raise ValueError(f"window is {window}; expected 1 to {MAX_WINDOW}")


def stream_in_threads(items: Iterable[Item], ask: Callable[[Item], Result], *, window: int) -> Iterator[Result]:
    """The results in order. A thread takes the items, so that a result does not wait for the next of them.

    At most `window` items have been taken whose results have not: back pressure reaches the
    iterator. What an item raises, or the iterator, is raised in its place and ends the stream.
    """
    check_window(window)
    stopped = threading.Event()
    asked: queue.Queue[Future[Result] | None] = queue.Queue()
    room = threading.Semaphore(window)
    pool = ThreadPoolExecutor(window, thread_name_prefix="stream")

    def take() -> None:
        try:
            for item in items:
                while not room.acquire(timeout=_LOOK_AGAIN_S):
                    if stopped.is_set():
                        return
                if stopped.is_set():
                    return
                asked.put(pool.submit(ask, item))
            asked.put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the results are taken
            failed: Future[Result] = Future()
            failed.set_exception(error)
            asked.put(failed)

    threading.Thread(target=take, name="stream-items", daemon=True).start()
    try:
        while (future := asked.get()) is not None:
            yield future.result()
            room.release()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


async def stream_in_tasks(
    items: Iterable[Item] | AsyncIterable[Item], ask: Callable[[Item], Awaitable[Result]], *, window: int
) -> AsyncIterator[Result]:
    """What `stream_in_threads` does, in tasks; the items may come from an asynchronous iterator."""
    check_window(window)
    asked: asyncio.Queue[asyncio.Future[Result] | None] = asyncio.Queue()
    room = asyncio.Semaphore(window)
    tasks: set[asyncio.Future[Any]] = set()

    async def take() -> None:
        try:
            async for item in _each(items):
                await room.acquire()
                task = asyncio.ensure_future(ask(item))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                asked.put_nowait(task)
            asked.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - it is raised where the results are taken
            failed: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            asked.put_nowait(failed)

    taking = asyncio.ensure_future(take())
    try:
        while (future := await asked.get()) is not None:
            yield await future
            room.release()
    finally:
        for task in (taking, *tasks):
            task.cancel()


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
