"""Many callers' small requests joined into larger ones. Decides only: no thread, no clock, no connection.

A lone caller's call goes at once. While as many joined requests are under way as may be, calls gather;
the next joined request takes all that fit. Who has a place under way takes the calls as late as it can,
right before it sends them.

A second request at the same time has the server compute while callers are given their answers, but two
requests cost the client more than one with the rows of both. So while the client is the slower side, it
sends another beside one under way only if that is full.
"""

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, TypeAlias

from inferry_client.errors import InferryError, InvalidRequestError, ReplyError
from inferry_client.limits import check_whole_number
from inferry_client.messages.call import Call, Joint

_MAX_ROWS = 65_536
_MAX_IN_FLIGHT = 1024
_WORTH_ANOTHER = 2.0  # see Pace: below this, one request of 64 rows did more rows a second than two of 32
_REMEMBERED = 8  # requests
_DEADLINE = attrgetter("deadline")


@dataclass(frozen=True)
class Batching:
    """How calls are joined.

    Attributes:
        max_rows: of a joined request; the server's limit where that is lower.
        max_in_flight: joined requests under way at the same time; while one is computed, the next travels. A client
            that is slower than its server sends another beside one under way only if that is full.
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
        joint: what it needs to be joined.
        timeout_s: that its caller gave it.
        deadline: until when its caller waits.
        wake: ends its caller's wait.
        answered: something has become of it.
        error: what the joined request ended with.
        alone: make the call by itself: a neighbour's may have been what was wrong.
        whole: the answer of the request that it travelled in.
        start: of its rows in that; None: all are its own.
        left: its caller does not wait any longer.
        asleep: where each caller wakes the next one, what wakes those of its request that have not been woken,
            and behind it what ends the request.
    """

    call: Call[Any]
    joint: Joint
    timeout_s: float
    deadline: float
    wake: Callable[[], object]
    answered: bool = field(default=False, init=False)
    error: InferryError | None = field(default=None, init=False)
    alone: bool = field(default=False, init=False)
    whole: Any = field(default=None, init=False)
    start: int | None = field(default=None, init=False)
    left: bool = field(default=False, init=False)
    asleep: "Asleep | None" = field(default=None, init=False)

    def waited_s(self, now: float) -> float:
        """How long it has waited."""
        return max(0.0, self.timeout_s - (self.deadline - now))

    def share(self) -> Any:
        """Its rows of the answer.

        Raises:
            InferryError: the joined request ended with one.
        """
        if self.error:
            raise self.error
        if self.start is None:
            return self.whole
        return self.joint.part(self.whole, self.start, self.start + self.joint.rows)


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended.

    Attributes:
        under_way_s: how long its callers waited for the server.
        at: when it ended.
    """

    under_way_s: float
    at: float


Asleep: TypeAlias = deque[Callable[[], object]]


class Joiner:
    """Calls that wait, by what can travel together. Its owner holds a lock around every method."""

    def __init__(self, settings: Batching) -> None:
        self._settings = settings
        self._groups: OrderedDict[Hashable, deque[Waiting]] = OrderedDict()
        self._rows = 0  # that wait
        self._in_flight = 0
        self._pace = Pace()

    def add(self, waiting: Waiting) -> None:
        """A call has come."""
        self._rows += waiting.joint.rows
        group = self._groups.get(waiting.joint.key)
        if group is None:
            self._groups[waiting.joint.key] = deque((waiting,))
        else:
            group.append(waiting)

    def remove(self, waiting: Waiting) -> None:
        """A caller does not wait any longer; nothing happens if its call has left."""
        group = self._groups.get(waiting.joint.key)
        if group and waiting in group:
            group.remove(waiting)
            self._rows -= waiting.joint.rows
            if not group:
                del self._groups[waiting.joint.key]

    def reserve(self) -> bool:
        """Take a place under way for calls that wait, to be given back with `release`; False: none, or none waits."""
        if not self._groups:
            return False
        if self._in_flight:
            if self._in_flight >= self._settings.max_in_flight:
                return False
            if self._pace.client_is_slower and self._rows < self._settings.max_rows:  # guard: join-few-requests
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
            self._pace.note(ended.under_way_s, now - ended.at)

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
        self._rows -= rows
        del self._groups[key]
        if group:
            self._groups[key] = group  # behind the others
        return taken


class Pace:
    """Whether server or client takes longer for a joined request, in the mean of the latest ones.

    Attributes:
        client_is_slower: the time that a second request could be under way unnoticed is not worth its cost.
    """

    def __init__(self) -> None:
        self._under_way_s = self._handing_out_s = 0.0
        self.client_is_slower = False

    def note(self, under_way_s: float, handing_out_s: float) -> None:
        """What a request took."""
        self._under_way_s += (under_way_s - self._under_way_s) / _REMEMBERED
        self._handing_out_s += (handing_out_s - self._handing_out_s) / _REMEMBERED
        self.client_is_slower = self._under_way_s < _WORTH_ANOTHER * self._handing_out_s


def join(waiting: Sequence[Waiting], now: float) -> Call[Any]:
    """One call out of several; it may take as long as the most patient of them."""
    patient = max(waiting, key=_DEADLINE)
    if len(waiting) == 1:
        return alone(patient, now)
    call = patient.joint.merge(patient.joint.key, [each.joint.payload for each in waiting], patient.timeout_s)
    call.waited_s = patient.waited_s(now)
    return call


def alone(waiting: Waiting, now: float) -> Call[Any]:
    """Its own call, in the time that is left."""
    return replace(waiting.call, waited_s=waiting.waited_s(now))


def deliver(waiting: Sequence[Waiting], result: Any) -> None:
    """Give everybody the answer, and where its rows are in it."""
    start = 0
    for each in waiting:
        each.whole, each.answered = result, True
        if len(waiting) > 1:
            each.start = start
            start += each.joint.rows


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
