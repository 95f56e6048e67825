"""Work for the thread that reads requests, done whenever none is ready to be read.

Two threads of one interpreter that meet over every request cost more than the request does: each takes
the interpreter from the other, and is woken for it. So a short batch is computed by the thread that
read its requests. Python does one thing after the other then, and nobody waits for it.
"""

import threading
from collections import deque
from collections.abc import Callable

from inferry_server.batching.shedding import Shedding

__all__ = ["Shedding", "SpareTime", "Work"]

Work = Callable[[], None]


class SpareTime:
    """The spare time of one thread; nobody's until `adopt`. Whatever is accepted is done, once.

    Attributes:
        work: what waits to be done; for its owner, which looks at it all the time.
        shedding: of the queue that began to shed last.
    """

    def __init__(self) -> None:
        self._thread: int | None = None
        self.work: deque[Work] = deque()
        self.shedding: Shedding | None = None

    def is_here(self) -> bool:
        """Whether it is the calling thread's."""
        return threading.get_ident() == self._thread

    def adopt(self) -> None:
        """The calling thread will do the work: from now on it calls `do_next` while there is some."""
        self._thread = threading.get_ident()

    def leave(self) -> None:
        """It will not any more. Called by that thread; what was accepted is done before."""
        self._thread = None
        while self.work:
            self.do_next()

    def do_soon(self, work: Work) -> None:
        """Have something done. From any thread: its owner is not woken for it, and may sleep for long."""
        self.work.append(work)

    def do_next(self) -> None:
        """Do what was accepted first."""
        self.work.popleft()()
