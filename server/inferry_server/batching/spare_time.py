"""Work for the thread that reads requests, done whenever none is ready to be read.

Two threads of one interpreter that meet over every request cost more than the request does: each takes
the interpreter from the other, and is woken for it. So a short batch is computed by the thread that
read its requests. Python does one thing after the other then, and nobody waits for it.
"""

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]


class SpareTime:
    """The spare time of one thread; nobody's until `adopt`. Whatever is accepted is done, once."""

    def __init__(self) -> None:
        self._thread: int | None = None
        self._work: deque[Work] = deque()
        self._pressing = False

    def is_here(self) -> bool:
        """Whether it is the calling thread's."""
        return threading.get_ident() == self._thread

    def adopt(self) -> None:
        """The calling thread will do the work: from now on it calls `do_next` while there is some."""
        self._thread = threading.get_ident()

    def leave(self) -> None:
        """It will not any more. Called by that thread; what was accepted is done before."""
        self._thread = None
        while self._work:
            self.do_next()

    def do_soon(self, work: Work) -> None:
        """Have something done. From any thread: its owner is not woken for it, and may sleep for long."""
        self._work.append(work)

    def press(self) -> None:
        """Ask for something to be done before much more is read."""
        self._pressing = True

    def is_pressing(self) -> bool:
        """Whether `press` was called since something was done."""
        return self._pressing

    def has_work(self) -> bool:
        """Whether something waits to be done."""
        return bool(self._work)

    def do_next(self) -> None:
        """Do what was accepted first."""
        self._pressing = False
        self._work.popleft()()
