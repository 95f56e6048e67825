"""How many calls gRPC may hand over, and how long one has waited to be read. Pure: time is passed in."""

from collections import deque

_AHEAD = 256  # calls asked for ahead; gRPC keeps further ones, some thousand at most
_STEP = 32  # calls asked for at once, for each takes a little time


class Intake:
    """The calls that one server has asked gRPC for and that have not come. Not thread-safe."""

    def __init__(self) -> None:
        self._asked: deque[float] = deque()  # when, for each
        self._caught_up_at = 0.0

    def caught_up(self, now: float) -> int:
        """Note that nothing was left to read at that time.

        Returns:
            For how many calls to ask now; they count as asked for.
        """
        self._caught_up_at = now
        return self._ask(now)

    def stalled(self, seconds: float) -> None:
        """Note that the process stood still for so long, which does not count as a call's waiting."""
        self._caught_up_at += seconds
        self._asked = deque([at + seconds for at in self._asked])

    def came(self, now: float) -> tuple[float, int]:
        """Note that a call has come.

        Returns:
            The most seconds that it can have waited: since nothing was left to read, or since it was asked for if that
            is later. Then for how many calls to ask now, as `caught_up` returns it.
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
