"""What a transport runs on its reading thread between two events; it knows no more of it."""

from collections.abc import Sized
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
    """Short work for the reading thread. The transport alone calls the two methods, on that thread.

    Attributes:
        pending: not empty while there is work.
        shedding: whether requests are shed for it.
    """

    @property
    def pending(self) -> Sized:
        """Work that waits; its length is asked before every event."""
        ...

    @property
    def shedding(self) -> Shedding | None:
        """The model for which requests were shed last; None before the first."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """The calling thread reads inside. At its end pending work is done, unless another thread reads by then."""
        ...

    def run_next(self) -> None:
        """Do what has waited longest; called only while something is pending."""


class Nothing:
    """A reading thread that reads only."""

    pending = ()
    shedding = None

    def reading(self) -> AbstractContextManager[None]:
        """Nothing is left to do at the end."""
        return nullcontext()

    def run_next(self) -> None:
        """Never called."""
