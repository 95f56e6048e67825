"""Which of two versions that share a device computes a request: a base, or its variant. Pure: time is passed in.

A variant that is k times as fast answers k requests in the time in which its base answers one. Below the base's
capacity the base answers everything. Above it nothing answers more than the variant alone; and as much is answered if
the base takes just as many requests as leave the variant enough of the device. The rules:

- ALONE, a base takes what it can compute in time. When a request that it refused was queued for a variant on its
  device, it is RELIEVED.
- RELIEVED, it takes a request only if no more than a full batch waits, in both queues together: rows of each count as
  the time that it needs for them. What accepts the variant goes there otherwise. So the device has enough to compute,
  nobody waits long, and what more comes is computed k times as fast.
- After a second in which no more came than the base could compute alone, it is TRIED: it takes a request unless that
  would wait for half the time that it has, as batches may take longer than they promise. After another such second it
  is ALONE. If it left a request to the variant, or more came, it is RELIEVED again.
- While the variant refuses requests because of those that wait, the base takes none that accept it: it would answer one
  where k are refused. While the base refuses some, those that accept the variant take no room from the others.
- Where too much of what waits for the variant is its own requests, the base takes what it can compute in time: with the
  device's time it answers more of its own requests than the variant would.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

_JUDGED_S = 1.0


class Load(NamedTuple):
    """What waits for a version in its interactive lane, and what the version can do.

    Attributes:
        rows: that wait, those being computed not counted.
        degraded_rows: those among them that it computes in place of a base.
        rows_per_s: of full batches; 0: not known.
        batch_rows: of a full batch on each instance.
        most_rows: that may wait.
        is_refusing: whether within a second it refused a request because of those queued before it.
    """

    rows: int
    degraded_rows: int
    rows_per_s: float
    batch_rows: int
    most_rows: int
    is_refusing: bool


class Phase(StrEnum):
    """What a base does with requests that accept a variant."""

    ALONE = "takes what it can compute in time"
    RELIEVED = "takes what the variant leaves it"
    TRIED = "takes what it can compute in half the time"


class Event(StrEnum):
    """What happened."""

    LEFT = "a request went to the variant because of those that wait"
    MORE = "for a second more came than the base could compute alone"
    LESS = "for a second no more came than the base could compute alone"


TRANSITIONS: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.ALONE: {Event.LEFT: Phase.RELIEVED, Event.MORE: Phase.ALONE, Event.LESS: Phase.ALONE},
    Phase.RELIEVED: {Event.LEFT: Phase.RELIEVED, Event.MORE: Phase.RELIEVED, Event.LESS: Phase.TRIED},
    Phase.TRIED: {Event.LEFT: Phase.RELIEVED, Event.MORE: Phase.RELIEVED, Event.LESS: Phase.ALONE},
}
"""The phase after an event, by the phase before. A base that is ALONE judges none, but two threads may end a second."""


class Relief:
    """The phase of one base. Any thread may call; where two do at once, a count may be a request off.

    Attributes:
        active: whether the phase is another than ALONE, which costs a request nothing.
    """

    __slots__ = ("_phase", "_rows", "_since", "active")

    def __init__(self) -> None:
        self.active = False
        self._phase = Phase.ALONE
        self._since = 0.0  # the second that is judged
        self._rows = 0  # that came since

    def left(self, now: float) -> None:
        """A request for the base was queued for a variant on the same device, because of those that wait."""
        if self._phase is not Phase.RELIEVED:
            self._begin_second(now, Event.LEFT)

    def count(self, rows: int, now: float, rows_per_s: Callable[[], float]) -> None:
        """A request for the base has come, while this is active.

        Args:
            rows: of the request.
            now: on the monotonic clock.
            rows_per_s: tells how many the base could compute alone; asked once a second.
        """
        self._rows += rows
        seconds = now - self._since
        if seconds >= _JUDGED_S:
            is_more = self._rows > rows_per_s() * seconds
            self._begin_second(now, Event.MORE if is_more else Event.LESS)

    def leaves(self, base: Load, variant: Load, *, left_s: float) -> bool:
        """Whether the base leaves an interactive request that accepts the variant to it, while this is active.

        Args:
            base: its load.
            variant: its load.
            left_s: until the deadline of the request; infinite where it has none.
        """
        if variant.degraded_rows * variant.rows_per_s < variant.rows * base.rows_per_s:  # guard: relief-own-requests
            return False
        if base.is_refusing or variant.is_refusing:  # guard: relief-refusing
            return True
        allowed = base.batch_rows  # guard: relief-full-batch
        if self._phase is Phase.TRIED:
            allowed = max(allowed, int(min(base.most_rows, left_s * base.rows_per_s) / 2))  # guard: relief-tried
        return waits_s(base, variant) * base.rows_per_s > allowed

    def _begin_second(self, now: float, event: Event) -> None:
        self._phase = TRANSITIONS[self._phase][event]  # guard: relief-ends
        self._since, self._rows = now, 0
        self.active = self._phase is not Phase.ALONE


def waits_s(base: Load, variant: Load) -> float:
    """Seconds that the device needs for all that waits for a base and its variant; 0 where that is not known."""
    if not base.rows_per_s or not variant.rows_per_s:
        return 0.0
    return base.rows / base.rows_per_s + variant.rows / variant.rows_per_s
