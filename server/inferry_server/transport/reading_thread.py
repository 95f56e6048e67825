"""The thread that reads calls and computes in between; if it computes for long, another thread reads from then on."""

import logging
import threading
from collections.abc import Callable

from inferry_server.executing.watchdog import Pulse
from inferry_server.transport.between_events import BetweenEvents

logger = logging.getLogger(__name__)

RELIEVED_AFTER_S = 0.4
"""Of computing: far longer than any batch that is expected to be short."""


class ReadingThread:
    """Runs `poll` on a thread, and on another one when that computes for too long; the first ends when it is done.

    `poll` adds to `turns`, looks at `current` and calls `compute`; the watchdog's thread calls `look`.

    Args:
        name: of the thread.
        poll: reads until the transport stops, or `current` is no longer its argument.
        inline: what is computed between two events.
        stopped: whether reading has ended for good.
        relieved: called by `look` when another thread reads from now on.

    Attributes:
        turns: of the loop; whoever polls adds to it.
        current: the number of the thread that reads: one more for each that was relieved.
        computing: whether the current thread computes, so that nothing is read.
        handover: held for a moment when another thread becomes the current one, or it has computed.
    """

    def __init__(
        self,
        name: str,
        poll: Callable[[int], None],
        inline: BetweenEvents,
        *,
        stopped: Callable[[], bool],
        relieved: Callable[[], object],
    ) -> None:
        self.turns = self.current = 0
        self.computing = False
        self._name = name
        self._poll = poll
        self._inline_work = inline
        self._stopped = stopped
        self._relieved = relieved
        self._pulse = Pulse()
        self.handover = threading.Lock()
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until reading has ended, so long at most."""
        self._thread.join(timeout_s)

    def is_alive(self) -> bool:
        """Whether a thread reads."""
        return self._thread.is_alive()

    def compute(self, reader: int, work: Callable[[], None]) -> None:
        """Do work on the thread that reads, which may be relieved meanwhile."""
        self.computing = True
        try:
            work()
        finally:
            with self.handover:  # `_relieve` was before this, or will find that nothing computes
                if self.current == reader:
                    self.computing = False

    def look(self) -> float:
        """See whether the thread goes on, and relieve it where it computes for long.

        Returns:
            Seconds for which it has not gone on.
        """
        still_s = self._pulse.still_s(self.turns)
        if still_s >= RELIEVED_AFTER_S:  # guard: watchdog-relieves
            self._relieve()
        return still_s

    def _read(self) -> None:
        reader = self.current
        with self._inline_work.reading():
            self._poll(reader)

    def _relieve(self) -> None:
        """Let another thread read, if the one that should computes."""
        with self.handover:
            if not self.computing or self._stopped():
                return
            self.current += 1
            self.computing = False
            self._thread = threading.Thread(target=self._read, name=f"{self._name}-{self.current}", daemon=True)
            self._thread.start()
        logger.warning("a batch that should be short is not: another thread reads requests")
        self._relieved()
