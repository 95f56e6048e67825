"""In the owner: one of its front ends, which is replaced when its process ends."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from inferry_server.errors import StartError
from inferry_server.executing.watchdog import Pulse
from inferry_server.front_ends import records
from inferry_server.front_ends.arena import ArenaWriter, open_arena
from inferry_server.front_ends.calls import ForwardedCalls
from inferry_server.front_ends.channel import Arenas, Channel, Wake
from inferry_server.front_ends.lending import LendingReader
from inferry_server.front_ends.records import Send

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 20  # of the socket, each way; the system may give less
_HANGS_AFTER_S = 20.0  # without a sign of life
_AGAIN_AFTER_S, _AGAIN_AT_MOST_S = 0.25, 10.0  # until a front end is replaced; twice as long each time
_LIVED_S = 10.0  # a front end that listened for so long begins anew with the shortest wait
_END_S = 2.0


class Slot:
    """The place of one front end. One thread calls `receive`, another one `look`; any may send.

    Args:
        number: of the place, from 0.
        wake: wakes the thread that polls.
        make_calls: makes what handles the calls of one process, given how records are sent to it.
        most_bytes: of one record that it may send.

    Attributes:
        number: of the place.
        channel: to the process; None where there is none now.
        settled: set once the first process listens, or cannot.
        failure: why the latest process cannot listen; None where it can.
        gone: set while there is no process.
        answered: whether every call ended by itself, as far as the process has told.
        uses_files: set once the process uses the files that it was told of last.
        still_s: for how long the process has not read although it should, by its own account.
        cpu_s: that all processes of this place have had, as far as they have told.
    """

    def __init__(
        self,
        number: int,
        wake: Wake,
        make_calls: Callable[[Send], ForwardedCalls],
        *,
        most_bytes: int = records.MOST_BYTES,
    ) -> None:
        self.number = number
        self.channel: Channel | None = None
        self.settled, self.gone, self.uses_files = threading.Event(), threading.Event(), threading.Event()
        self.failure: str | None = None
        self.answered = True
        self.still_s = self.cpu_s = 0.0
        self._process_cpu_s = 0.0
        self._wake = wake
        self._make_calls = make_calls
        self._most_bytes = most_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: ForwardedCalls | None = None
        self._signs = 0
        self._pulse = Pulse()
        self._listening_since: float | None = None
        self._again_at = 0.0
        self._again_after_s = _AGAIN_AFTER_S

    @property
    def is_listening(self) -> bool:
        """Whether its process takes connections."""
        return self._listening_since is not None

    def begin(self, plan: bytes) -> Channel:
        """Start a process.

        Args:
            plan: the body of the first record.

        Returns:
            The channel to it, which is to be polled.

        Raises:
            StartError: the system starts none.
        """
        try:
            self._process, ours, arenas = _start()
        except OSError as error:
            raise StartError(f"a front end cannot be started ({error}); front_ends 0 needs none") from error
        channel = Channel(ours, self._wake, arenas, most_bytes=self._most_bytes)
        self._process_cpu_s, self.answered, self._pulse = 0.0, True, Pulse()
        channel.put(records.PLAN, 0, plan)
        self._calls = self._make_calls(channel.put)
        self.gone.clear()
        self.channel = channel
        return channel

    def receive(self) -> bool:
        """Handle what has come; returns whether the process is still there."""
        channel, calls = self.channel, self._calls
        assert channel is not None  # noqa: S101 - it is polled
        assert calls is not None  # noqa: S101 - made with the channel
        received = channel.receive()
        if received is None:
            return False
        handlers = calls.handlers
        for kind, number, body, message in received:
            try:
                handler = handlers.get(kind)
                if handler is not None:
                    handler(number, body, message)
                else:
                    self._handle(kind, body)
            except Exception:  # no record may take the other calls away
                logger.exception("what front end %d says could not be done", self.number)
        calls.handle_gathered()
        return True

    def ended(self, now: float) -> None:
        """The process has closed its end: its calls are over.

        Args:
            now: monotonic seconds.
        """
        channel, calls = self.channel, self._calls
        assert channel is not None  # noqa: S101 - it was polled
        assert calls is not None  # noqa: S101 - made with the channel
        self.channel = None
        channel.close()
        self.answered &= not len(calls)
        calls.close()
        if self._listening_since is not None and now - self._listening_since > _LIVED_S:
            self._again_after_s = _AGAIN_AFTER_S
        self._listening_since, self.still_s = None, 0.0
        self.put_off(now)
        if not self.settled.is_set():
            self.failure = self.failure or f"front end {self.number} ended before it listened"
            self.settled.set()
        self.gone.set()
        self.uses_files.set()

    def put_off(self, now: float) -> None:
        """Start the next process only after a while, which is twice as long each time."""
        self._again_at = now + self._again_after_s
        self._again_after_s = min(2 * self._again_after_s, _AGAIN_AT_MOST_S)

    def is_due(self, now: float) -> bool:
        """Whether there is no process, and one should be started now."""
        return self.gone.is_set() and now >= self._again_at

    def end_if_it_hangs(self, *, is_heard: bool) -> None:
        """Kill a process that gives no sign of life: its callers get an end, and it is replaced.

        Args:
            is_heard: whether signs are read now; if not, that there are none says nothing.
        """
        process = self._process
        if process is None or self.gone.is_set() or not self.is_listening:
            return
        if not is_heard:  # guard: front-end-unheard
            self._signs += 1
        if self._pulse.still_s(self._signs) >= _HANGS_AFTER_S:
            logger.error("front end %d has given no sign of life for %g s, and is killed", self.number, _HANGS_AFTER_S)
            self._signs += 1  # until it has gone, and after that of another process
            process.kill()

    def reap(self) -> str:
        """Wait for a process that has closed its end, or kill it; returns how it ended, in words."""
        if self._process is None:
            return "never started"
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return f"signal {-status}" if status < 0 else f"status {status}"

    def _handle(self, kind: int, body: bytes) -> None:
        match kind:
            case records.ALIVE:
                self._signs += 1
                self.still_s, cpu_s = records.read_alive(body)
                self.cpu_s += cpu_s - self._process_cpu_s
                self._process_cpu_s = cpu_s
            case records.LISTENING:
                self.failure = None
                self._listening_since = time.monotonic()
                self.settled.set()
            case records.FAILED:
                self.failure = body.decode()
                self.settled.set()
            case records.USES_FILES:
                self.uses_files.set()
            case records.STOPPED:
                self.answered &= bool(body[0])
            case records.FREED if self.channel is not None:
                self.channel.freed(records.read_places(body))


def _start() -> tuple["subprocess.Popen[bytes]", socket.socket, Arenas | None]:
    """Start a process; returns it, our end of the socket to it, and the memory that both share."""
    with ExitStack() as ours_to_close, ExitStack() as its:
        ours, theirs = socket.socketpair()
        ours_to_close.callback(ours.close)
        its.callback(theirs.close)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        shared = [theirs.fileno()]
        arenas = None
        incoming, outgoing = _open_arena(its), _open_arena(its)
        if incoming is not None and outgoing is not None:
            arenas = Arenas(ArenaWriter(outgoing), LendingReader(incoming))
            shared += [incoming, outgoing]  # as `__main__.py` takes them
        process = subprocess.Popen(  # noqa: S603 - our own program
            # Modules come from where ours come from, and never from the working directory.
            [sys.executable, "-P", "-m", "inferry_server.front_ends", *map(str, shared)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            pass_fds=shared,
            stdin=subprocess.DEVNULL,
            process_group=0,  # an interrupt from the terminal is for the owner
        )
        ours_to_close.pop_all()
    return process, ours, arenas


def _open_arena(closing: ExitStack) -> int | None:
    """Memory to share, whose descriptor is closed with the others."""
    descriptor = open_arena()
    if descriptor is not None:
        closing.callback(os.close, descriptor)
    return descriptor
