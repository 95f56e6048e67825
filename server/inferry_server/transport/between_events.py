"""Work that a transport does on its reading thread between two events, without knowing what it is for."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Shedding(Protocol):
    """Whether requests for a model are shed: refused before they are queued, or even read."""

    @property
    def retry_after_s(self) -> float:
        """What callers are told to wait; 0 while nothing is shed."""
        ...

    def count(self) -> object:
        """Count one request that is refused before its message is read."""
        ...


class BetweenEvents(Protocol):
    """Short work for the reading thread. The transport alone calls `reading`, on that thread.

    Attributes:
        pending: work that waits, the oldest first.
        stays_awake: whether the thread polls for a moment before it sleeps again.
        shedding: whether requests are shed.
    """

    @property
    def pending(self) -> deque[Callable[[], None]]:
        """Work that waits; its length is asked before every event, and the first of it is taken and run."""
        ...

    @property
    def stays_awake(self) -> bool:
        """Whether the thread polls on for a moment after work that was short, as a request may soon come."""
        ...

    @property
    def shedding(self) -> Shedding | None:
        """The shedding for which calls may be refused unread; None: for none."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """The calling thread reads inside. At its end pending work is done, unless another thread reads by then."""
        ...


class Nothing:
    """For a reading thread that computes nothing."""

    def __init__(self) -> None:
        self.pending: deque[Callable[[], None]] = deque()

    stays_awake = False
    shedding = None

    def reading(self) -> AbstractContextManager[None]:
        """At its end nothing is left to do."""
        return nullcontext()
