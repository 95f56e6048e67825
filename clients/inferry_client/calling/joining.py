"""Many callers' small requests joined into larger ones. Decides only: no thread, no clock, no connection.

A lone caller's call goes at once. While as many joined requests are under way as may be, calls gather;
the next joined request takes all that fit. Who has a place under way takes the calls as late as it can,
right before it sends them.

A second request at the same time has the server compute while callers are given their answers, but two
requests cost the client more than one with the rows of both. A client that takes longer to give its
callers their answers than the server to compute them sends halves: a request takes at most half of the
rows that wait or are under way, and leaves beside another only if it is half as large at least. So one half
is computed while the callers of the other get their answers and ask again.
"""

import copy
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import attrgetter
from typing import Any

from inferry_client.errors import InferryError, InvalidRequestError, ReplyError
from inferry_client.limits import check_whole_number
from inferry_client.messages.call import Call, Joint

_MAX_ROWS = 65_536
_MAX_IN_FLIGHT = 1024
_WORTH_HALVES = 2.0  # see Pace
_REMEMBERED = 8  # requests
_DEADLINE = attrgetter("deadline")


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
        check_whole_number("max_rows", self.max_rows, 1, _MAX_ROWS)
        check_whole_number("max_in_flight", self.max_in_flight, 1, _MAX_IN_FLIGHT)


@dataclass(eq=False)  # without slots: what is not set yet costs nothing
class Waiting:
    """A call that waits to be answered, alone or together with others.

    Attributes:
        call: what is asked.
        joint: how it is joined.
        timeout_s: that its caller gave it.
        deadline: until when its caller waits.
        woken: what its caller waits for, a lock or a future.
        answered: something has become of it.
        result: its share of the answer.
        error: what the joined request ended with.
        alone: make the call by itself: a neighbour's may have been what was wrong.
        left: its caller does not wait any longer.
    """

    call: Call[Any]
    joint: Joint
    timeout_s: float
    deadline: float
    woken: Any
    answered: bool = field(default=False, init=False)
    result: Any = field(default=None, init=False)
    error: InferryError | None = field(default=None, init=False)
    alone: bool = field(default=False, init=False)
    left: bool = field(default=False, init=False)

    def waited_s(self, now: float) -> float:
        """How long it has waited."""
        return max(0.0, self.timeout_s - (self.deadline - now))


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended.

    Attributes:
        rows: that it carried.
        under_way_s: how long its callers waited for the server.
        at: when its callers began to be given their answers.
    """

    rows: int
    under_way_s: float
    at: float


class Joiner:
    """Calls that wait, by what can travel together. Its owner holds a lock around every method."""

    def __init__(self, settings: Batching) -> None:
        self._settings = settings
        self._groups: dict[Joint, list[Waiting]] = {}  # whose turn it is first
        self._rows = 0  # that wait
        self._under_way = 0  # rows
        self._in_flight = 0
        self._pace = Pace()

    def add(self, waiting: Waiting) -> None:
        """A call has come."""
        self._rows += waiting.call.rows
        group = self._groups.get(waiting.joint)
        if group is None:
            self._groups[waiting.joint] = [waiting]
        else:
            group.append(waiting)

    def remove(self, waiting: Waiting) -> None:
        """A caller does not wait any longer; nothing happens if its call has left."""
        group = self._groups.get(waiting.joint)
        if group and waiting in group:
            group.remove(waiting)
            self._rows -= waiting.call.rows
            if not group:
                del self._groups[waiting.joint]

    def reserve(self) -> bool:
        """Take a place under way for calls that wait, to be given back with `release`; False: none, or none waits."""
        if not self._groups or self._in_flight >= self._settings.max_in_flight:
            return False
        small = 2 * self._rows * self._in_flight < self._under_way and self._rows < self._settings.max_rows
        if small and self._sends_halves():  # guard: join-few-requests
            return False
        self._in_flight += 1
        return True

    @property
    def idle(self) -> bool:
        """Whether no call waits and none is under way; a hint where the owner's lock is not held."""
        return not (self._groups or self._in_flight)

    def reserve_alone(self) -> bool:
        """Take a place for a call that has come and nobody could travel with; False: it had better wait."""
        if not self.idle:
            return False
        self._in_flight += 1
        return True

    def release(self, ended: "Ended | None" = None, *, now: float = 0.0) -> None:
        """Give a place back.

        Args:
            ended: the request that had it; None: there was none to be sent, or it was one call's own.
            now: when all callers of the request had their answer, and could ask again.
        """
        self._in_flight -= 1
        if ended:
            self._under_way -= ended.rows
            self._pace.note(ended.under_way_s, max(0.0, now - ended.at) / ended.rows)

    def take(self, limit: Callable[[Call[Any]], int]) -> list[Waiting]:
        """The calls to be sent together now, for a place that was reserved; empty: none waits.

        Groups take turns, calls of a group leave in their order.

        Args:
            limit: the most rows that a call's model takes.
        """
        if not self._groups:
            return []
        joint, group = next(iter(self._groups.items()))
        most = max(1, min(self._settings.max_rows, limit(group[0].call), self._share()))
        stops = list(accumulate([each.call.rows for each in group[:most]]))
        count = max(1, bisect_right(stops, most))  # guard: join-limit
        taken, left = group[:count], group[count:]
        self._rows -= stops[count - 1]
        self._under_way += stops[count - 1]
        del self._groups[joint]
        if left:
            self._groups[joint] = left  # behind the others
        return taken

    def _sends_halves(self) -> bool:
        return self._rows + self._under_way > self._pace.halves_from

    def _share(self) -> int:
        """How many rows the next request may carry, so that another of as many is computed meanwhile."""
        rows = self._rows + self._under_way
        if self._settings.max_in_flight > 1 and self._sends_halves():  # guard: join-halves
            return (rows + 1) // 2
        return rows


class Pace:
    """What takes longer for a joined request, the server or the client, in the mean of the latest ones.

    Attributes:
        halves_from: to give more callers than that their answers takes the client about as long as a request is
            under way; two requests are worth their cost then.
    """

    def __init__(self) -> None:
        self._under_way_s = self._handing_out_s = 0.0
        self.halves_from = math.inf

    def note(self, under_way_s: float, handing_out_s: float) -> None:
        """How long a request was under way, and how long it took to give the answer of a row to its caller."""
        self._under_way_s += (under_way_s - self._under_way_s) / _REMEMBERED
        self._handing_out_s += (handing_out_s - self._handing_out_s) / _REMEMBERED
        handing_out_s = _WORTH_HALVES * self._handing_out_s
        self.halves_from = self._under_way_s / handing_out_s if handing_out_s else math.inf


def join(waiting: Sequence[Waiting], now: float) -> Call[Any]:
    """One call out of several; it may take as long as the most patient of them."""
    patient = max(waiting, key=_DEADLINE)
    if len(waiting) == 1:
        return alone(patient, now)
    call = patient.joint.merge([each.call.message for each in waiting], patient.timeout_s)
    call.waited_s = patient.waited_s(now)
    return call


def alone(waiting: Waiting, now: float) -> Call[Any]:
    """Its own call, in the time that is left."""
    return replace(waiting.call, waited_s=waiting.waited_s(now))


def split(waiting: Sequence[Waiting], result: Any) -> Sequence[Any]:
    """Everybody's share of the answer, in order."""
    if len(waiting) == 1:
        return [result]
    return waiting[0].joint.split(result, [each.call.rows for each in waiting])


def deliver(waiting: Sequence[Waiting], shares: Sequence[Any]) -> None:
    """Give everybody their share."""
    for each, share in zip(waiting, shares, strict=True):
        each.result, each.answered = share, True


def fail(waiting: Sequence[Waiting], error: InferryError) -> None:
    """Give everybody the error; where one call may be to blame, everybody asks again alone."""
    blame = len(waiting) > 1 and isinstance(error, (InvalidRequestError, ReplyError))  # guard: join-guilty-alone
    if blame:
        separate(waiting)
        return
    for each in waiting:
        each.error, each.answered = copy.copy(error), True


def separate(waiting: Sequence[Waiting]) -> None:
    """Have everybody ask alone."""
    for each in waiting:
        each.alone = each.answered = True
