"""How many calls gRPC may hand over, and how long one has waited to be read. Pure: time is passed in."""

from collections import deque

_AHEAD = 256  # calls asked for ahead; gRPC keeps further ones, some thousand at most
_STEP = 32  # calls asked for at once, for each takes a little time


class Intake:
    """The calls of one server that were asked for and have not come. Not thread-safe."""

    def __init__(self) -> None:
        self._asked: deque[float] = deque()  # when, for each
        self._caught_up_at = 0.0

    def caught_up(self, now: float) -> int:
        """Nothing was left to read at that time.

        Returns:
            For how many calls to ask now; they count as asked for.
        """
        self._caught_up_at = now
        return self._ask(now)

    def stalled(self, seconds: float) -> None:
        """The process stood still for so long: that says nothing about how long a call has waited."""
        self._caught_up_at += seconds
        self._asked = deque([at + seconds for at in self._asked])

    def came(self, now: float) -> tuple[float, int]:
        """A call has come.

        Returns:
            Seconds that it has waited, at most, as far as can be told: since nothing was left to read, and since it
            was asked for. Then for how many calls to ask now, as for `caught_up`.
        """
        since = self._asked.popleft()
        if since < self._caught_up_at:
            since = self._caught_up_at
        return now - since if now > since else 0.0, self._ask(now)

    def _ask(self, now: float) -> int:
        more = min(_AHEAD - len(self._asked), _STEP)
        if more > 0:
            self._asked.extend([now] * more)
        return more
