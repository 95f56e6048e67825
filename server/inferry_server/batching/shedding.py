"""Whether requests for a model are refused before they are decoded, because others wait. Pure: time is passed in.

Rules:

- Where more requests come than can be computed, none is read while a full batch waits: it could only wait longer, or
  be refused, at the expense of what waits already. If the batch was offered to the reading thread, it computes the
  batch first; if it waits for a thread of the instances, requests are shed until that takes it. If requests are
  cancelled so that what waits no longer fills a batch, or the queue closes, shedding ends at once: it may be that
  nothing is left to be taken.
- More come than can be computed if a request was refused lately because of those before it. A request that was shed
  does not count: shedding does not prolong itself.
- Bulk requests neither begin shedding nor fill the batch for which requests are shed, nor are they shed where they can
  be told from others: interactive requests overtake them, and their lane has room of its own.
- Calls are refused unread, whatever they ask for, only while the batch waits for the reading thread, which takes it at
  once.
- A model sheds for itself: a request for another one is never shed for it.
- Unary calls and requests of streams are shed alike.
"""

import math
from collections.abc import Callable

_LATELY_S = 0.25
_SHORTEST_S = 1e-6


class Shedding:
    """The state of one model's queue. Its owner holds a lock; `retry_after_s` may be read by any thread.

    Args:
        count: told of each request that is refused before its message is read.

    Attributes:
        needed_until: before then, more requests come than can be computed.
        retry_after_s: what callers are told to wait, the time of the batch that is to be computed first; 0 while
            nothing is shed.
    """

    def __init__(self, count: Callable[[], object] = lambda: None) -> None:
        self.retry_after_s = 0.0
        self.count = count
        self.needed_until = -math.inf

    def refused(self, now: float) -> None:
        """A request was refused because of those before it."""
        self.needed_until = now + _LATELY_S

    def begin(self, batch_s: float) -> None:
        """Shed until `end`: a full batch waits, and should take so long."""
        self.retry_after_s = max(batch_s, _SHORTEST_S)

    def end(self) -> None:
        """The batch was taken, is left to another thread, or waits no longer."""
        self.retry_after_s = 0.0
