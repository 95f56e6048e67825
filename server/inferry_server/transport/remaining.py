"""How long a client still waits, as gRPC tells it by a wall clock that may jump meanwhile.

gRPC keeps a call's deadline on the monotonic clock, and converts it to the wall clock whenever it is read. A jump of
the wall clock between such a reading and our own look at that clock makes the deadline wrong by the jump. Two readings
that agree, one before and one after that look, show that there was none: on a clock that does not jump a deadline
stays where it is.
"""

import time
from collections.abc import Callable
from typing import Protocol

SAME_S = 0.001
"""Two readings of a deadline that differ by less agree: gRPC looks at both clocks for each, one after the other."""
_TRIES = 8  # then the last reading is taken, right or wrong


class WallDeadline(Protocol):
    """A call's details, as grpcio's private layer has them."""

    @property
    def deadline(self) -> float:
        """On the wall clock of the moment."""


def monotonic_deadline(details: WallDeadline) -> float:
    """A call's deadline on the monotonic clock, read again for as long as the wall clock jumps."""
    for _ in range(_TRIES):
        deadline = details.deadline
        now, left_s = time.monotonic(), deadline - time.time()
        if abs(details.deadline - deadline) < SAME_S:
            break
    return now + left_s


def settled(left_s: Callable[[], float | None]) -> float | None:
    """What a function says is left until a deadline, once it says so twice; None where there is none.

    grpcio's asyncio server subtracts the two clocks itself, and of a negative difference it says 0.
    """
    first = left_s()
    if first is None:
        return None
    for _ in range(_TRIES):
        second = left_s()
        if second is None or abs(second - first) < SAME_S:
            break
        first = second
    return second
