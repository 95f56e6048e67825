"""Who decodes: processes of their own, or the threads that send."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import Protocol, Self

from inferry_client.batch.decode import Decoded, DecodeSettings, decode_chunk
from inferry_client.batch.errors import JobError
from inferry_client.batch.records import Content


class Decoder(Protocol):
    """Reads and decodes chunks, in any order."""

    def start(self, contents: Sequence[Content]) -> "Future[Decoded]":
        """A chunk that will be decoded; whoever waits for it may have to do it."""


class InlineDecoder:
    """Whoever waits for a chunk decodes it: best for few pictures, and where there is one core."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings

    def start(self, contents: Sequence[Content]) -> "Future[Decoded]":
        """A chunk that is decoded by whoever asks for its result."""
        return _Lazy(contents, self._settings)


class ProcessDecoder:
    """Processes that decode. They end with their parent, however it ends, and leave signals to it."""

    def __init__(self, settings: DecodeSettings, *, processes: int) -> None:
        self._settings = settings
        self._pool = ProcessPoolExecutor(
            processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, contents: Sequence[Content]) -> "Future[Decoded]":
        """A chunk that waits for a process."""
        try:
            return self._pool.submit(decode_chunk, contents, self._settings)
        except BrokenProcessPool as error:
            raise _killed() from error


def decoded_by(decoding: "Future[Decoded]") -> Decoded:
    """A chunk once it is decoded.

    Raises:
        JobError: the process that decoded it was killed.
    """
    try:
        return decoding.result()
    except BrokenProcessPool as error:
        raise _killed() from error


def _killed() -> JobError:
    return JobError(
        "a decoding process was killed, probably for want of memory; complete parts are kept: run again with fewer "
        "--decoders or a smaller --batch-size"
    )


class _Lazy(Future[Decoded]):
    def __init__(self, contents: Sequence[Content], settings: DecodeSettings) -> None:
        super().__init__()
        self._contents = contents
        self._settings = settings

    def result(self, timeout: float | None = None) -> Decoded:  # noqa: ARG002 - as every future
        return decode_chunk(self._contents, self._settings)


def _begin_process() -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # a terminal and Kubernetes may tell the whole group; the parent decides
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
