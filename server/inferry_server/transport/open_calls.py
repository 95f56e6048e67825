"""Which calls to end because their clients neither send nor read: after a time, or earlier where too many are open."""

import heapq
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

U = TypeVar("U")
S = TypeVar("S", bound="Stream")


class Stream(Protocol):
    """A streaming call, as it waits for its client.

    Attributes:
        active_at: when its client last sent or read something, or was sent something, in monotonic seconds.
    """

    active_at: float

    @property
    def awaits_request(self) -> bool:
        """Whether its client may send, and nothing is on its way to it."""

    @property
    def awaits_reader(self) -> bool:
        """Whether a reply is on its way to its client."""


def idle(streams: Iterable[S], since: float) -> list[S]:
    """The streams whose clients could have sent a request since some moment, and have sent no whole one."""
    return [one for one in streams if one.awaits_request and one.active_at <= since]  # guard: streams-idle


def unread(streams: Iterable[S], since: float) -> list[S]:
    """The streams whose clients have read nothing of a reply since some moment."""
    return [one for one in streams if one.awaits_reader and one.active_at <= since]  # guard: streams-unread


def longest_waiting(unasked: Mapping[U, float], streams: Iterable[S], most: int) -> list[U | S]:
    """The calls that are too many: those whose clients have been silent for longest.

    Args:
        unasked: unary calls without a request, and since when.
        streams: all that are open.
        most: of both together.
    """
    waiting: list[tuple[float, U | S]] = [(since, call) for call, since in unasked.items()]
    waiting += [(stream.active_at, stream) for stream in streams]
    return [call for _, call in heapq.nsmallest(len(waiting) - most, waiting, key=_since)]  # guard: open-calls


def _since(waiting: tuple[float, object]) -> float:
    return waiting[0]
