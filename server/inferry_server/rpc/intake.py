"""How many calls gRPC may hand over, and how long one has waited to be read. Pure: time is passed in.

Who is sent more than it can even refuse answers everything too late, if it lets calls wait unread. gRPC turns
calls away itself, for much less than it costs to read one and refuse it, once more wait than were asked for and
may wait besides. So while the server keeps up, it asks for many calls ahead, as room for bursts; and for few once
it has been reading without a pause, until nothing is left to read, or had to refuse a request a moment ago.
"""

import math
from collections import deque

MAY_WAIT, MUST_NOT_WAIT = 16, 32
"""Calls beside those asked for: beyond the first number gRPC turns some away, beyond the second all."""

_MOST, _LEAST = 1024, 16  # calls asked for ahead
_BEHIND_S = 0.05  # of reading without a pause: the server does not keep up
_CROWDED_S = 2.0  # after it was crowded
_STEP = 32  # calls asked for at once, for each takes a little time


class Intake:
    """The calls of one server that were asked for and have not come. Not thread-safe."""

    def __init__(self) -> None:
        self._asked: deque[float] = deque()  # when, for each
        self._caught_up_at = 0.0
        self._crowded_at = -math.inf

    def caught_up(self, now: float) -> None:
        """Nothing was left to read at that time."""
        self._caught_up_at = now

    def came(self, now: float) -> float:
        """A call has come.

        Returns:
            Seconds that it has waited, at most: since nothing was left, and since it was asked for. A call that
            waited before it was asked for has waited longer; there are few of them (`MUST_NOT_WAIT`).
        """
        since = self._asked.popleft()
        if since < self._caught_up_at:
            since = self._caught_up_at
        return now - since if now > since else 0.0

    def crowded(self, now: float) -> None:
        """What was read fills the queues and more: gRPC had better turn calls away."""
        self._crowded_at = now

    def ask(self, now: float) -> int:
        """For how many calls to ask now; they count as asked for."""
        keeps_up = now - self._caught_up_at <= _BEHIND_S and now - self._crowded_at > _CROWDED_S
        missing = (_MOST if keeps_up else _LEAST) - len(self._asked)
        if missing <= 0:
            return 0
        more = min(missing, _STEP)
        self._asked.extend([now] * more)
        return more
