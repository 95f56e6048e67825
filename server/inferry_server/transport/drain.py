"""How a server stops without losing a call that has arrived: the steps of every transport, in order.

While a server closes, gRPC cancels calls that have arrived and that no handler has got yet. So:

- Requests that arrive from now on are held.
- Requests that arrived before get their replies first, for a second at most: a caller that waits for a reply sends no
  further request.
- Once no request has arrived for a moment, connections are closed, and everything that was held is handled after all.
- Unary calls that were opened and have sent no request have `STRAGGLER_S` to send it; after that they get UNAVAILABLE.
- What has not ended by the grace time is cancelled, by the transport.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

STRAGGLER_S = 0.3
"""How long after it closed a server still takes the request of a unary call that was opened before."""

# Connections are closed once no request has arrived for the first of these times, or after the second. Before that,
# replies are waited for, the third time at most: a caller that gets one may send the next request.
_QUIET_S, _LONGEST_HOLD_S, _LONGEST_OWED_S = 0.03, 0.3, 1.0
_LOOK_EVERY_S = 0.01


class Draining(Protocol):
    """What a transport does in each step. `drain` calls it on one thread, and never waits itself."""

    @property
    def last_arrival(self) -> float:
        """When the latest of the held requests arrived; any earlier time where none is held."""
        ...

    def hold(self) -> None:
        """Hold the requests that arrive from now on."""

    def owes_replies(self) -> bool:
        """Whether unary requests that are not held have no reply yet."""
        ...

    def has_ended(self) -> bool:
        """Whether no call is under way any more, or none can get a reply."""
        ...

    def close(self) -> None:
        """Accept no calls from now on, handle what is held, and let streams end."""

    def turn_away(self) -> None:
        """Wait no longer for the requests of calls that were opened."""


def drain(transport: Draining, grace_s: float, clock: Callable[[], float]) -> Iterator[float]:
    """Take the steps one after another.

    Args:
        transport: takes them; cancels what is left when this ends.
        grace_s: how long calls under way may take after it has closed.
        clock: monotonic seconds.

    Yields:
        Seconds to wait before the next step, or until the transport has ended.
    """
    transport.hold()
    owed_until = clock() + min(grace_s, _LONGEST_OWED_S)
    while transport.owes_replies() and clock() < owed_until and not transport.has_ended():  # guard: drain-owed-first
        yield _LOOK_EVERY_S
    began = clock()
    while clock() - max(began, transport.last_arrival) < _QUIET_S and clock() - began < _LONGEST_HOLD_S:
        if transport.has_ended():
            break
        yield _LOOK_EVERY_S
    transport.close()
    ends = clock() + grace_s
    yield min(STRAGGLER_S, grace_s)
    transport.turn_away()
    yield max(0.0, ends - clock())
