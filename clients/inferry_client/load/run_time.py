"""How long a closed loop lasts: from when users send in every process.

Locust's own run time counts from the order to spawn users. Where processes are late to obey, on a machine with
little time for them, a test would be over before a user has sent anything.
"""

from collections.abc import Callable


class RunTime:
    """Ends a test so long after the first request of the process that sends last.

    Belongs to the process that decides for all of them, whose greenlets do not run at the same time.

    Args:
        processes: that users run in.
        start: called once, when users send in all of them: from then on the test lasts for its duration.
    """

    def __init__(self, processes: int, start: Callable[[], object]) -> None:
        self._processes = processes
        self._sending: set[str] = set()
        self._start = start

    def sends(self, process: str) -> None:
        """A user of this process sends; further calls of the process change nothing."""
        if process in self._sending:
            return
        self._sending.add(process)
        if len(self._sending) == self._processes:  # guard: load-time-all
            self._start()
