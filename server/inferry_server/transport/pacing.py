"""How often to ask the kernel for what it tells slowly, such as its tables: the more connections, the more slowly."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pacing:
    """Spreads work that one thread does again and again, by the CPU time that it took when it was done last.

    Args:
        cores: that the work may take.
        longest_s: from one time to the next, whatever the work takes.
        clock: monotonic seconds.
        cpu_clock: seconds for which the calling thread has had a core.
    """

    def __init__(
        self,
        cores: float,
        longest_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._cores = cores
        self._longest_s = longest_s
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._done_at = float("-inf")
        self._pause_s = 0.0

    def is_due(self, *, times: float = 1.0) -> bool:
        """Whether the work is to be done again.

        Args:
            times: how much more often than usual, as it is urgent; the work may then take so many times the cores.
        """
        return self._clock() >= self._done_at + self._pause_s / times

    @contextmanager
    def work(self) -> Iterator[None]:
        """Measure the work; where it fails it stays due."""
        now, began = self._clock(), self._cpu_clock()
        yield
        self._done_at, self._pause_s = now, min(self._longest_s, (self._cpu_clock() - began) / self._cores)
