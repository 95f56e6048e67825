"""Who decodes: processes of their own, or the threads that send."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from types import TracebackType
from typing import Protocol, Self

from inferry_client.batch.decode import Decoded, DecodeSettings, decode_chunk, failed_chunk, join_chunks
from inferry_client.batch.records import TOO_COSTLY, Content, Fault

_KILLED = Fault(TOO_COSTLY, "the process that decoded it was killed, probably for want of memory")


class Decoder(Protocol):
    """Reads and decodes chunks, in any order."""

    def start(self, contents: Sequence[Content]) -> Callable[[], Decoded]:
        """Begin with a chunk; whoever calls the result waits for it, and may have to decode it."""


class InlineDecoder:
    """Whoever waits for a chunk decodes it: best for few pictures, and where there is one core."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings

    def start(self, contents: Sequence[Content]) -> Callable[[], Decoded]:
        """A chunk that is decoded by whoever asks for it."""
        return partial(decode_chunk, contents, self._settings)


class ProcessDecoder:
    """Processes that decode. They end with their parent, however it ends, and leave signals to it.

    Where one is killed, as the kernel does for want of memory, the chunks that were being decoded are decoded again in
    a process apart, and if that is killed, picture by picture: the one that kills it is a fault.

    `start` is called by one thread, what it returns by any.
    """

    def __init__(self, settings: DecodeSettings, *, processes: int) -> None:
        self._settings = settings
        self._processes = processes
        self._pool = _open_pool(processes)
        self._apart = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, contents: Sequence[Content]) -> Callable[[], Decoded]:
        """A chunk that waits for a process."""
        try:
            decoding = self._pool.submit(decode_chunk, contents, self._settings)
        except BrokenProcessPool:
            self._pool = _open_pool(self._processes)
            decoding = self._pool.submit(decode_chunk, contents, self._settings)
        return partial(self._result, contents, decoding)

    def _result(self, contents: Sequence[Content], decoding: "Future[Decoded]") -> Decoded:
        try:
            return decoding.result()
        except BrokenProcessPool:
            with self._apart:
                return self._decode_apart(contents)

    def _decode_apart(self, contents: Sequence[Content]) -> Decoded:
        with _open_pool(1) as pool:
            try:
                return pool.submit(decode_chunk, contents, self._settings).result()
            except BrokenProcessPool:
                pass
        if len(contents) == 1:
            return failed_chunk(_KILLED, self._settings)
        return join_chunks([self._decode_apart([content]) for content in contents])


def _open_pool(processes: int) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")  # gRPC's threads do not survive a fork
    return ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin_process)


_NICE = 10  # whoever waits for an answer on this machine goes first


def _begin_process() -> None:
    os.nice(_NICE)
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # a terminal and Kubernetes may tell the whole group; the parent decides
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
