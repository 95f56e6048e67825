"""Batches that the thread that reads requests computes between two events.

If one thread reads a request and another computes it, each takes the interpreter from the other and wakes it, which
costs more CPU than the request itself. So a short batch is computed by the thread that read its requests.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inferry_server.batching.shedding import Shedding

__all__ = ["InlineWork", "Shedding", "Work"]

Work = Callable[[], None]


class InlineWork:
    """The work that the reading thread does between two events. All work that is appended is done, once.

    Any thread appends to `pending` and looks at `thread`. The reading thread alone calls `reading`; inside, it runs
    what it takes from the left of `pending`. Appending does not wake it, and it may sleep for long. Nothing blocks.

    Attributes:
        pending: work that waits; the reading thread looks at it before every event.
        thread: the reading thread, as `threading.get_ident` numbers it; None: no thread reads.
        shedding: of the queue for which calls may be refused unread; None: for none.
    """

    stays_awake = True
    """A caller who waited for the reply may soon send the next request."""

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
