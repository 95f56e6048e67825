"""How long a closed loop lasts: from when users send in every process that has some.

Locust's own run time counts from the order to spawn users. Where processes are late to obey, on a machine with
little time for them, a test would be over before a user has sent anything.
"""

from collections.abc import Callable, Collection


class RunTime:
    """Ends a test so long after the first request of the process that sends last.

    Belongs to the process that decides for all of them, whose greenlets do not run at the same time.

    Args:
        first: called once, when the first process sends: figures count from then.
        all_send: called once, when users send in all processes: from then on the test lasts for its duration.
    """

    def __init__(self, first: Callable[[], object], all_send: Callable[[], object]) -> None:
        self._sending: set[str] = set()
        self._first = first
        self._all_send: Callable[[], object] | None = all_send

    def sends(self, process: str, processes: Collection[str], users: int) -> None:
        """A user of a process sends; further calls of the process change nothing.

        Args:
            process: its name.
            processes: see `look`.
            users: see `look`.
        """
        if not self._sending:
            self._first()
        self._sending.add(process)
        self.look(processes, users)

    def look(self, processes: Collection[str], users: int) -> bool:
        """Whether users send in every process; asked for now and then, since a process may die before it sends.

        Args:
            processes: those that are there.
            users: of all of them together; where they are fewer than processes, some have none.
        """
        sending = len(self._sending.intersection(processes))
        all_send = bool(self._sending) and sending >= min(len(processes), users)  # guard: load-time-all
        if all_send and self._all_send:
            begin, self._all_send = self._all_send, None
            begin()
        return all_send
