"""Batches that the thread that reads requests computes between two events.

Two threads of one interpreter that meet over every request cost more than the request does: each takes
the interpreter from the other, and is woken for it. So a short batch is computed by the thread that
read its requests. Python does one thing after the other then, and nobody waits for it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inferry_server.batching.shedding import Shedding

__all__ = ["InlineWork", "Shedding", "Work"]

Work = Callable[[], None]


class InlineWork:
    """What one thread runs between two events; no thread's until `reading`. Whatever is accepted is run, once.

    The reading thread calls `reading` and `run_next`; any thread may call `is_here` and `run_soon`. Nothing blocks.

    Attributes:
        pending: what waits to be run; the reading thread looks at it before every event.
        shedding: of the queue that began to shed last.
    """

    def __init__(self) -> None:
        self._thread: int | None = None
        self.pending: deque[Work] = deque()
        self.shedding: Shedding | None = None

    def is_here(self) -> bool:
        """Whether the calling thread is the reading thread."""
        return threading.get_ident() == self._thread

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The calling thread reads inside, and calls `run_next` while something is pending.

        At the end everything pending is run, unless another thread has begun to read meanwhile.
        """
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            if self.is_here():
                self._thread = None
                while self.pending:
                    self.run_next()

    def run_soon(self, work: Work) -> None:
        """Have the reading thread run something. It is not woken for it, and may sleep for long."""
        self.pending.append(work)

    def run_next(self) -> None:
        """Run what was accepted first."""
        self.pending.popleft()()
