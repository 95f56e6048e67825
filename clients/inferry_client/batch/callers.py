"""How a job leaves a core to a server on its own machine and to the server's other callers, while there are any.

`Callers` decides and has no clock; `leaving_a_core` asks the server and binds decoding processes to cores.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from inferry_client.batch.window import Window
from inferry_client.client import Client
from inferry_client.connecting.addresses import find_host, is_loopback, parse_servers
from inferry_client.errors import InferryError

_LOOK_S = 0.25
_ASK_S = 1.0
_FIRST_LOOKS = 2  # the second one sees whether anybody asked since the first
QUIET_S = 5.0
"""Without callers, where there were some: they are gone."""


class Callers:
    """Whether others than the job ask its server, by the number of requests that the server has answered.

    Attributes:
        near: whether they do. Until it is known, they do.
    """

    def __init__(self) -> None:
        self.near = True
        self._answered = self._looks = 0
        self._others: int | None = None
        self._near_until = -math.inf

    def look(self, answered: int | None, *, own: int, now: float) -> None:
        """See what the server has answered by now.

        Args:
            answered: by the server, to the job and to others; None where it does not tell.
            own: of the job, that may be among them: what is under way counts.
            now: seconds of a clock, when the server was asked.
        """
        self._looks += 1
        if answered is not None:
            others = answered - own  # no more than there were
            if self._others is None or answered < self._answered:  # guard: batch-callers-restart
                self._others = others
            elif others > self._others:  # guard: batch-callers-own
                self._others = others
                self._near_until = now + QUIET_S
            self._answered = answered
        self.near = self._looks < _FIRST_LOOKS or now < self._near_until


@contextmanager
def leaving_a_core(client: Client, servers: str, window: Window) -> Iterator[None]:
    """Inside, the decoding processes of a job beside its server leave a core while others ask the server.

    They do so until it is known that nobody asks. A thread that is woken while every core decodes waits milliseconds
    for one of them, whatever the priorities. The job's own threads, which compute a quarter of what decoders do, use
    all cores: bound too, they would cost the job more than callers gain. Nothing is done but on Linux, with two cores
    or more.

    Args:
        client: of the servers.
        servers: their addresses; nothing is done for several, or for one on another machine.
        window: has all requests of the job.
    """
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if len(cores) < 2 or not is_beside(servers):
        yield
        return
    over = threading.Event()
    watching = threading.Thread(target=_watch, args=(client, window, cores, over), name="batch-callers", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def is_beside(servers: str) -> bool:
    """Whether these are one server, on this machine."""
    address, *others = parse_servers(servers)
    return not others and (address.startswith("unix") or is_loopback(find_host(address)))  # guard: batch-callers-beside


def bind_children(cores: Sequence[int]) -> None:
    """Let all threads of the processes that this one started run on these cores only."""
    for thread in _list(Path("/proc/self/task")):
        with suppress(OSError):
            for child in (thread / "children").read_text().split():
                for other in _list(Path("/proc", child, "task")):
                    _bind(other, cores)


def _watch(client: Client, window: Window, cores: Sequence[int], over: threading.Event) -> None:
    callers = Callers()
    while True:
        answered, now = None, time.monotonic()
        with suppress(InferryError):  # the server is away, or does not tell
            answered = sum(version.requests for version in client.statistics(timeout_s=_ASK_S))
        callers.look(answered, own=window.own, now=now)
        bind_children(cores[:-1] if callers.near else cores)  # again and again: processes begin meanwhile
        if over.wait(_LOOK_S):
            return


def _list(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _bind(thread: Path, cores: Sequence[int]) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)
