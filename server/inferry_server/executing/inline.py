"""Work for the thread that reads requests, done whenever none is ready to be read.

Two threads of one interpreter that meet over every request cost more than the request does: each takes
the interpreter from the other, and is woken for it. So a short batch is computed by the thread that
read its requests. Python does one thing after the other then, and nobody waits for it.
"""

import math
import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]

_SHORTEST_S = 1e-6


class SpareTime:
    """The spare time of one thread; nobody's until `adopt`. Whatever is accepted is done, once.

    Attributes:
        work: what waits to be done; for its owner, which looks at it all the time.
        pressing_s: how long what is to be done before more is read should take; 0 where nothing is pressing.
        refused_at: when a request was refused last, because more came than can be computed; monotonic seconds.
    """

    def __init__(self) -> None:
        self._thread: int | None = None
        self.work: deque[Work] = deque()
        self.pressing_s = 0.0
        self.refused_at = -math.inf

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

    def press(self, takes_s: float) -> None:
        """Ask for something to be done before more is read."""
        self.pressing_s = max(takes_s, _SHORTEST_S)

    def do_next(self) -> None:
        """Do what was accepted first."""
        self.pressing_s = 0.0
        self.work.popleft()()
