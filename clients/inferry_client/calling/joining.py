"""Many callers' small requests joined into larger ones. Decides only: no thread, no clock, no connection.

Never waits while a request may be sent: a lone caller's goes at once. While as many joined
requests are under way as may be, calls gather; the next joined request takes all that fit. Who
has a place under way takes the calls as late as it can, right before it sends them.
"""

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from inferry_client.errors import InferryError, InvalidRequestError
from inferry_client.messages.call import Call, Joint

_MAX_ROWS = 65_536


@dataclass(frozen=True)
class Batching:
    """How calls are joined.

    Attributes:
        max_rows: of a joined request; the server's limit where that is lower.
        max_in_flight: joined requests under way at the same time; while one is computed, the next travels.
    """

    max_rows: int = 64
    max_in_flight: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.max_rows <= _MAX_ROWS:
            raise ValueError(f"max_rows is {self.max_rows}; expected 1 to {_MAX_ROWS}")
        if not 1 <= self.max_in_flight <= 1024:
            raise ValueError(f"max_in_flight is {self.max_in_flight}; expected 1 to 1024")


@dataclass(eq=False, slots=True)
class Waiting:
    """A call that waits to be answered, alone or together with others.

    Attributes:
        call: what is asked.
        joint: what it needs to be joined.
        timeout_s: that it has left.
        wake: told when something has become of it.
        result: its share of the joined answer.
        error: what the joined request ended with.
        alone: make the call by itself: a neighbour's may have been what was wrong.
        leads: this call's caller is to send what waits: it has one of the places under way.
    """

    call: Call[Any]
    joint: Joint
    timeout_s: float
    wake: Callable[[], object]
    result: Any = None
    error: InferryError | None = None
    alone: bool = False
    leads: bool = False
    answered: bool = field(default=False)

    def settle(self, result: Any = None, error: InferryError | None = None, *, alone: bool = False) -> None:
        """Say what became of it."""
        self.result, self.error, self.alone, self.answered = result, error, alone, True
        self.wake()


class Joiner:
    """Calls that wait, by what can travel together. Its owner holds a lock around every method."""

    def __init__(self, settings: Batching) -> None:
        self._settings = settings
        self._groups: OrderedDict[Hashable, deque[Waiting]] = OrderedDict()
        self._in_flight = 0

    def add(self, waiting: Waiting) -> None:
        """A call has come."""
        self._groups.setdefault(waiting.joint.key, deque()).append(waiting)

    def remove(self, waiting: Waiting) -> None:
        """A caller does not wait any longer; nothing happens if its call has left."""
        group = self._groups.get(waiting.joint.key)
        if group and waiting in group:
            group.remove(waiting)
            if not group:
                del self._groups[waiting.joint.key]

    def waits(self, waiting: Waiting) -> bool:
        """Whether a call has not left yet."""
        return waiting in self._groups.get(waiting.joint.key, ())

    def next_leader(self) -> Waiting | None:
        """Of the calls that wait, the first whose caller has no place under way; None: there is none."""
        return next((each for group in self._groups.values() for each in group if not each.leads), None)

    def reserve(self) -> bool:
        """Take a place for a joined request under way, to be given back with `release`; False: all are taken."""
        if self._in_flight >= self._settings.max_in_flight:
            return False
        self._in_flight += 1
        return True

    def release(self) -> None:
        """A joined request has ended, or there was none to send."""
        self._in_flight -= 1

    def take(self, limit: Callable[[Call[Any]], int]) -> list[Waiting]:
        """The calls to be sent together now, for a place that was reserved; empty: none waits.

        Groups take turns, calls of a group leave in their order.

        Args:
            limit: the most rows that a call's model takes.
        """
        if not self._groups:
            return []
        key, group = next(iter(self._groups.items()))
        most = max(1, min(self._settings.max_rows, limit(group[0].call)))
        taken = [group.popleft()]
        rows = taken[0].joint.rows
        while group and rows + group[0].joint.rows <= most:  # guard: join-limit
            rows += group[0].joint.rows
            taken.append(group.popleft())
        del self._groups[key]
        if group:
            self._groups[key] = group  # behind the others
        return taken


def join(waiting: Sequence[Waiting]) -> Call[Any]:
    """One call out of several; it may take as long as the most patient of them."""
    if len(waiting) == 1:
        return waiting[0].call
    first = waiting[0].joint
    return first.merge([each.joint.payload for each in waiting], max(each.timeout_s for each in waiting))


def deliver(waiting: Sequence[Waiting], result: Any) -> None:
    """Give everybody its rows of the answer."""
    if len(waiting) == 1:
        waiting[0].settle(result)
        return
    start = 0
    for each in waiting:
        stop = start + each.joint.rows
        each.settle(each.joint.part(result, start, stop))
        start = stop


def fail(waiting: Sequence[Waiting], error: InferryError) -> None:
    """Give everybody the error; where one call may be to blame, everybody asks again alone."""
    blame = len(waiting) > 1 and isinstance(error, InvalidRequestError)  # guard: join-guilty-alone
    for each in waiting:
        each.settle(error=None if blame else copy.copy(error), alone=blame)
