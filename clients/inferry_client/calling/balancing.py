"""Which of several servers gets the next attempt. Decides only: no clock, no thread, no connection.

A server is in one of two states:

    SERVING --- did not answer, or said that it is away ---> SUSPECT
    SUSPECT --- answered a probe or an attempt ------------> SERVING

Attempts go round the serving servers. A suspect gets none while another server serves; it is
probed instead, at once and then after growing pauses. While every server is suspect, attempts go
round all of them: one of them may have come back since.
"""

from collections.abc import Collection

_FIRST_PROBE_S = 0.1  # twice that of it for each probe that failed in a row
_LONGEST_PROBE_S = 2.0  # so a server that came back gets requests again within about this time
PROBE_TIMEOUT_S = 1.0


class Balancer:
    """Round robin over the servers that answer.

    Any thread may call any method: each reads or replaces single values, so that two calls at the
    same time cost at most a probe too many.

    Args:
        count: of servers, at least 1; they are known by index.

    Attributes:
        suspects: by index; empty while all serve.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._next = 0
        self.suspects: dict[int, _Suspect] = {}

    def pick(self, avoid: Collection[int] = ()) -> int:
        """The server for the next attempt; one that serves and is not in `avoid`, if there is any."""
        count, suspects = self._count, self.suspects
        start = self._next
        self._next = (start + 1) % count
        if not suspects and not avoid:
            return start
        order = [(start + step) % count for step in range(count)]
        return min(order, key=lambda index: (index in suspects, index in avoid))  # guard: client-suspects-last

    def others(self, tried: Collection[int]) -> bool:
        """Whether a server that serves has not been tried yet."""
        return any(index not in tried and index not in self.suspects for index in range(self._count))

    def answered(self, index: int) -> None:
        """A server answered, however it did."""
        self.suspects.pop(index, None)

    def failed(self, index: int, now: float) -> None:
        """A server was away, or kept silent until the deadline."""
        if self._count > 1 and index not in self.suspects:
            self.suspects[index] = _Suspect(due=now)

    def due_probes(self, now: float) -> list[int]:
        """The suspects to be probed now; each is handed out once until `probed` says how it went."""
        due = [index for index, suspect in list(self.suspects.items()) if now >= suspect.due]
        for index in due:
            self.suspects[index] = _Suspect(due=now + 2 * PROBE_TIMEOUT_S, failed=self._failed(index))
        return due

    def probed(self, index: int, *, serving: bool, now: float) -> None:
        """A probe ended."""
        if serving:  # guard: client-suspect-back
            self.answered(index)
        elif index in self.suspects:
            failed = self._failed(index) + 1
            pause_s = min(_LONGEST_PROBE_S, _FIRST_PROBE_S * 2.0 ** min(failed, 10))
            self.suspects[index] = _Suspect(due=now + pause_s, failed=failed)

    def _failed(self, index: int) -> int:
        suspect = self.suspects.get(index)
        return suspect.failed if suspect else 0


class _Suspect:
    """When a server is probed next, and how many probes failed in a row."""

    def __init__(self, due: float, failed: int = 0) -> None:
        self.due = due
        self.failed = failed
