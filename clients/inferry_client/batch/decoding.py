"""Who decodes: processes of their own, or the threads that send."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol, Self

from inferry_client.batch.decode import Decoded, DecodeSettings, decode_chunk, failed_chunk, join_chunks
from inferry_client.batch.decoder_process import READY, receive_decoded
from inferry_client.batch.errors import JobError
from inferry_client.batch.priority import give_way
from inferry_client.batch.records import TOO_COSTLY, Content, Fault

_KILLED = Fault(TOO_COSTLY, "the process that decoded it was killed, probably for want of memory")
_AHEAD = 2  # chunks that a process has: while one is decoded, the next is there
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from inferry_client.batch.priority import give_way, import_in_turns; give_way(); import_in_turns(); "
    "from inferry_client.batch.decoder_process import serve; serve(int(sys.argv[1]))"
)


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
    """Processes that decode, and a thread for each, which hands it chunks. Any thread may call `start`.

    They end with their parent, however it ends, and leave signals to it. Where one is killed, as the kernel does for
    want of memory, the chunks that it had are decoded again in a process apart, and if that is killed, picture by
    picture: the one that kills it is a fault. No more than one process decodes apart at a time.

    On leaving the context whatever is being decoded is dropped.
    """

    def __init__(self, settings: DecodeSettings, *, processes: int) -> None:
        self._settings = settings
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._apart = threading.Lock()
        self._closing = threading.Event()
        self._processes = [_Process(settings) for _ in range(processes)]
        self._threads = [
            threading.Thread(target=self._serve, args=(index,), name=f"batch-decode-{index}", daemon=True)
            for index in range(processes)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for process in self._processes:
            process.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        while task := self._next_task(wait=False):
            task.cancel()

    def start(self, contents: Sequence[Content]) -> Callable[[], Decoded]:
        """A chunk that waits for a process."""
        task = _Task(contents)
        self._tasks.put(task)
        return task.result

    def _serve(self, index: int) -> None:
        """Keep one process busy until the end; where none can be started, nothing is decoded any more."""
        give_way()
        has: deque[_Task] = deque()
        try:
            self._keep_busy(index, has)
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
            while (waiting := has.popleft() if has else self._tasks.get()) is not None:
                waiting.fail(error)
        self._processes[index].kill()
        for task in has:
            task.cancel()

    def _keep_busy(self, index: int, has: "deque[_Task]") -> None:
        while True:
            process = self._processes[index]
            try:
                if len(has) < _AHEAD and (task := self._next_task(wait=not has)) is not None:
                    _hand_over(task, process, has)
                elif has and not self._closing.is_set():
                    has[0].settle(process.receive)
                    has.popleft()
                else:
                    return
            except (EOFError, OSError):
                if self._closing.is_set():
                    return
                self._processes[index] = self._replace(process, has)

    def _next_task(self, *, wait: bool) -> "_Task | None":
        try:
            return self._tasks.get(block=wait)
        except Empty:
            return None

    def _replace(self, dead: "_Process", has: "deque[_Task]") -> "_Process":
        """Another process for one that died; what that had is decoded apart."""
        status = dead.kill()
        while has:
            task = has[0]
            task.settle(partial(self._decode_alone, task.contents) if dead.was_ready or status < 0 else dead.complain)
            has.popleft()
        return _Process(self._settings)

    def _decode_alone(self, contents: Sequence[Content]) -> Decoded:
        with self._apart:
            return self._decode_apart(contents)

    def _decode_apart(self, contents: Sequence[Content]) -> Decoded:
        process = _Process(self._settings)
        try:
            process.send(pickle.dumps(contents))
            return process.receive()
        except (EOFError, OSError):
            if not process.was_ready:
                process.complain()
        finally:
            process.kill()
        if len(contents) == 1:
            return failed_chunk(_KILLED, self._settings)
        return join_chunks([self._decode_apart([content]) for content in contents])


def _hand_over(task: "_Task", process: "_Process", has: "deque[_Task]") -> None:
    try:
        data = pickle.dumps(task.contents)
    except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
        task.fail(error)
        return
    has.append(task)
    process.send(data)


class _Task:
    """A chunk that somebody waits for."""

    def __init__(self, contents: Sequence[Content]) -> None:
        self.contents = contents
        self._future: Future[Decoded] = Future()

    def result(self) -> Decoded:
        return self._future.result()

    def cancel(self) -> None:
        self._future.cancel()

    def fail(self, error: Exception) -> None:
        self._future.set_exception(error)

    def settle(self, make: Callable[[], Decoded]) -> None:
        """Give what `make` returns or raises to who waits; that a process died is the caller's."""
        try:
            decoded = make()
        except (EOFError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
            self.fail(error)
        else:
            self._future.set_result(decoded)


class _Process:
    """One decoding process. One thread uses it; `kill` may come from any."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        # not of `multiprocessing`, whose processes bring another one, and import the parent's main module
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # NumPy's others spin for 0.1 s when it is imported
            pass_fds=[theirs.fileno()],
            process_group=0,  # a terminal's signals go to the parent alone
        )
        theirs.close()
        self.was_ready = False
        with suppress(OSError):  # it is dead already, as whoever sends or receives will notice
            self._connection.send_bytes(pickle.dumps(settings))

    def send(self, data: bytes) -> None:
        """Hand over a chunk, pickled; it never waits for the process to decode."""
        self._connection.send_bytes(data)

    def receive(self) -> Decoded:
        """The oldest chunk that was sent, decoded.

        Raises:
            EOFError: the process is dead; or OSError.
        """
        if not self.was_ready:
            self.was_ready = self._connection.recv_bytes() == READY
        return receive_decoded(self._connection)

    def complain(self) -> Decoded:
        """It could not begin.

        Raises:
            JobError: always.
        """
        status = self._process.wait()
        raise JobError(f"decoding processes cannot be started: one ended with status {status}; see what it wrote above")

    def kill(self) -> int:
        """End it, if it has not ended; to its status. Who waits for what it decodes is told."""
        self._process.kill()
        return self._process.wait()
