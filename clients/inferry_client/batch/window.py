"""How many requests are under way: one more for every round that is answered, half when a server is full.

`Limit` decides and knows no threads; `Window` lets threads wait for a place.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inferry_client.errors import RequestCancelledError


class Limit:
    """Additive increase, multiplicative decrease, over requests that are numbered as they are sent.

    A refusal of a request that was sent before the latest decrease tells nothing new: the server
    refuses many at a time.
    """

    def __init__(self, *, most: int) -> None:
        self._most = float(most)
        self._limit = float(most)
        self._sent = 0
        self._decreased_at = 0

    @property
    def value(self) -> int:
        """Requests that may be under way; at least one."""
        return int(self._limit)

    def send(self) -> int:
        """The number of a request that is being sent."""
        self._sent += 1
        return self._sent

    def answered(self) -> None:
        """A request was answered."""
        self._limit = min(self._most, self._limit + 1 / self._limit)

    def refused(self, number: int) -> None:
        """The request of this number was refused because the server is full."""
        if number > self._decreased_at:  # guard: batch-one-decrease
            self._limit = max(1.0, self._limit / 2)
            self._decreased_at = self._sent


@dataclass(frozen=True)
class Place:
    """Of one request among those under way."""

    window: "Window"
    number: int

    def answered(self) -> None:
        """The server answered it."""
        self.window.tell(self, full=False)

    def refused(self) -> None:
        """The server was full."""
        self.window.tell(self, full=True)


class Window:
    """Places for requests under way. Thread-safe; whoever finds none waits."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()
        self.refusals = 0

    @contextmanager
    def place(self, stop: threading.Event) -> Iterator[Place]:
        """A place, given back on leaving.

        Raises:
            RequestCancelledError: `stop` was set first.
        """
        with self._changed:
            while self._taken >= self._limit.value:  # guard: batch-window
                if stop.is_set():
                    raise RequestCancelledError("the job was stopped")
                self._changed.wait(0.1)
            self._taken += 1
            place = Place(self, self._limit.send())
        try:
            yield place
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify()

    def tell(self, place: Place, *, full: bool) -> None:
        """What became of a request."""
        with self._changed:
            if full:
                self.refusals += 1
                self._limit.refused(place.number)
            else:
                self._limit.answered()
