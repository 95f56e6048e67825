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
    """What one thread runs between two events; no thread's until `reading`. Whatever is appended is run, once.

    Any thread appends to `pending` and looks at `thread`; the reading thread alone calls `reading`, and runs inside
    what it takes from the left of `pending`. It is not woken for it, and may sleep for long. Nothing blocks.

    Attributes:
        pending: what waits to be run; the reading thread looks at it before every event.
        thread: which one reads, as `threading.get_ident` tells; None: none does.
        shedding: of the queue that began to shed last.
    """

    def __init__(self) -> None:
        self.pending: deque[Work] = deque()
        self.thread: int | None = None
        self.shedding: Shedding | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The calling thread reads inside.

        At the end everything pending is run, unless another thread has begun to read meanwhile.
        """
        reader = self.thread = threading.get_ident()
        try:
            yield
        finally:
            if self.thread == reader:
                self.thread = None
                while self.pending:
                    self.pending.popleft()()
