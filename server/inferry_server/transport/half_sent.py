"""Memory of requests that come only in part: which calls end where it is short, and when it is given back."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from inferry_server.runtime.memory import available_bytes, trim_heap

C = TypeVar("C")

_LOOKS = 20  # of the watchdog, five seconds: gRPC frees a call's message soon after its end
_RESERVED_MESSAGES = 4  # of the largest size
_SLOW_S = 1.0  # for a request to come


def is_memory_short(max_message_bytes: int, available: Callable[[], int] = available_bytes) -> bool:
    """Whether less memory is left than a few requests of the largest size take.

    Args:
        max_message_bytes: of one request.
        available: tells what is left, in bytes.
    """
    return available() < _RESERVED_MESSAGES * max_message_bytes  # guard: memory-short


def giving_way(unasked: Mapping[C, float], now: float) -> list[C]:
    """The calls that are ended where memory is short: half of those whose requests come slowly, the oldest.

    gRPC does not tell how much of a request has come.

    Args:
        unasked: unary calls without a request, and since when; the oldest first.
        now: in the same seconds.
    """
    slow = [call for call, since in unasked.items() if now - since > _SLOW_S]  # guard: memory-short-slow
    return slow[: -(-len(slow) // 2)]


class HalfSent:
    """Trims the heaps some looks after a call has ended without its request, at most once in so many looks.

    `ended` is called by the thread that reads calls, `look` by the watchdog's.
    """

    def __init__(self, trim: Callable[[], object] = trim_heap) -> None:
        self._trim = trim
        self._looks_left = 0

    def ended(self) -> None:
        """Note that a call has ended of whose request a part may have come."""
        if not self._looks_left:  # else callers who come and go would put it off for ever
            self._looks_left = _LOOKS

    def look(self) -> None:
        """Trim the heaps if it is time."""
        if self._looks_left:
            self._looks_left -= 1
            if not self._looks_left:
                self._trim()
