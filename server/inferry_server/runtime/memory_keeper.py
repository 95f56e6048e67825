"""Gives back memory that a burst of requests, or an attack, has left free, while the process does little."""

import logging
import threading
import time
from collections.abc import Callable

from inferry_server.runtime.heap import HeapTrimming, unused_bytes
from inferry_server.runtime.memory import trim_heap

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
"""How often the heaps are looked at; a look takes some 0.1 ms of a core."""
_QUIET_CORES = 0.2  # used since the last look: with fewer, nobody waits for the process or its heaps


class MemoryKeeper:
    """Looks at the heaps now and then, on a thread of its own. `start`, then `close`, are called once each.

    Args:
        when_quiet: called at each look at which the process does little, to free what others keep; may take as long as
            one run of a model.
        unused: tells unused bytes, as `unused_bytes` does; None where the system does not tell.
        trim: gives the heaps' free memory back.
        clock: monotonic seconds.
        cpu_clock: seconds for which this process' threads have had cores.
    """

    def __init__(
        self,
        when_quiet: Callable[[], object] = lambda: None,
        *,
        unused: Callable[[], int | None] = unused_bytes,
        trim: Callable[[], object] = trim_heap,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._when_quiet = when_quiet
        self._unused = unused
        self._trim = trim
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._trimming = HeapTrimming()
        self._looked_at, self._cpu_s = clock(), cpu_clock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="memory", daemon=True)

    def start(self) -> None:
        """Start the thread. What is unused at this moment counts as memory that cannot be given back."""
        unused = self._unused()
        if unused is not None:
            self._trimming.gave_back(unused)
        self._thread.start()

    def close(self) -> None:
        """End the thread, without waiting for a look that is under way."""
        self._closed.set()

    def look(self) -> None:
        """Look once, and give back what can be given back."""
        now, cpu_s = self._clock(), self._cpu_clock()
        busy = cpu_s - self._cpu_s > _QUIET_CORES * (now - self._looked_at)  # guard: memory-quiet
        self._looked_at, self._cpu_s = now, cpu_s
        if not busy:
            self._when_quiet()
        unused = self._unused()
        if unused is None or not self._trimming.is_due(unused, busy=busy, now=now):
            return
        self._trim()
        left = self._unused()
        if left is not None:
            self._trimming.gave_back(left)
            logger.debug("%d MiB of free memory went back to the system", (unused - left) >> 20)
        self._cpu_s = self._cpu_clock()  # trimming itself does not count as being busy

    def _keep(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # a fault of one look must not end all of them
                logger.exception("free memory could not be looked at")
