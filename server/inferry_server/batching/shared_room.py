"""How much may wait for all models together. Pure: the lanes know what waits in them.

Half of the room is for whoever comes first. Once it is taken, a lane may hold no more than its equal share of the
other half: a model that others crowd out still gets its requests in, and all lanes together hold no more than the
room. (Shares become smaller when a version joins; what waits by then stays.)
"""

from operator import attrgetter
from typing import Protocol

_UNBOUNDED = 1 << 62
_NBYTES = attrgetter("nbytes")  # a thousand models have two thousand lanes


class Held(Protocol):
    """What holds requests that wait.

    Attributes:
        nbytes: of their inputs.
    """

    nbytes: int


class SharedRoom:
    """The room that the lanes of all versions share. Any thread may call it, under the locks of the lanes or without.

    Its own state is a dictionary whose single operations are atomic. Lanes that change while they are summed up may be
    a request off, each.

    Args:
        limit: bytes that may wait in all lanes.

    Attributes:
        share: bytes that a lane may hold whatever waits elsewhere.
    """

    def __init__(self, limit: int = _UNBOUNDED) -> None:
        self._half = limit // 2
        self._lanes: dict[Held, None] = {}
        self.share = self._half

    def join(self, *lanes: Held) -> None:
        """Lanes in which requests will wait."""
        self._lanes.update(dict.fromkeys(lanes))
        self._divide()

    def leave(self, *lanes: Held) -> None:
        """Lanes in which no request will wait any more; they may have left before."""
        for lane in lanes:
            self._lanes.pop(lane, None)
        self._divide()

    def has_room(self, nbytes: int) -> bool:
        """Whether so many bytes more may wait in a lane that has had its share."""
        lanes = list(self._lanes)  # at once: others may join or leave meanwhile
        waiting: int = sum(map(_NBYTES, lanes))
        return waiting + nbytes <= self._half

    def _divide(self) -> None:
        self.share = self._half // max(1, len(self._lanes))
