"""What a transport runs on its reading thread between two events; it knows no more of it."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Shedding(Protocol):
    """Why requests are refused before they are decoded, and who counts them."""

    @property
    def retry_after_s(self) -> float:
        """What callers are told to wait; 0 while nothing is shed."""
        ...

    def count(self) -> object:
        """Told of each request that is refused before its message is read."""
        ...


class BetweenEvents(Protocol):
    """Short work for the reading thread. The transport alone calls `reading`, on that thread.

    Attributes:
        pending: work that waits, the oldest first.
        shedding: whether requests are shed for it.
    """

    @property
    def pending(self) -> deque[Callable[[], None]]:
        """Work that waits; its length is asked before every event, and the first of it is taken and run."""
        ...

    @property
    def shedding(self) -> Shedding | None:
        """The model for which requests were shed last; None before the first."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """The calling thread reads inside. At its end pending work is done, unless another thread reads by then."""
        ...


class Nothing:
    """A reading thread that reads only."""

    def __init__(self) -> None:
        self.pending: deque[Callable[[], None]] = deque()

    shedding = None

    def reading(self) -> AbstractContextManager[None]:
        """Nothing is left to do at the end."""
        return nullcontext()
