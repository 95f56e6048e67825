"""Whether requests for a model are *shed*: refused before they are queued. Pure: time is passed in.

Rules:

- While more requests for a model come than it can compute, and a full batch of it waits, further requests for it are
  shed. They could only wait longer than those that wait, or be refused at the scheduler. Pictures are not decoded.
- Shedding ends when a thread takes the batch: the reading thread, if the batch was offered to it, or the first thread
  of the model's instances that is free. It also ends when so many requests are cancelled that those which wait no
  longer fill a batch, and when the queue closes: there may be no batch left to take.
- More requests come than can be computed if one was refused in the last quarter of a second because of those queued
  before it. A request that was shed does not count: shedding does not prolong itself.
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
        count: called for each request that is refused before its message is read.

    Attributes:
        refused_at: when a request was refused latest because of those queued before it.
        needed_until: until then, more requests come than can be computed.
        retry_after_s: what callers are told to wait: the time that the full batch should take; 0 while nothing is
            shed.
    """

    def __init__(self, count: Callable[[], object] = lambda: None) -> None:
        self.retry_after_s = 0.0
        self.count = count
        self.refused_at = self.needed_until = -math.inf

    def refused(self, now: float) -> None:
        """A request was refused because of those queued before it."""
        self.refused_at, self.needed_until = now, now + _LATELY_S

    def begin(self, batch_s: float) -> None:
        """Shed until `end`: a full batch waits, which should take `batch_s` seconds."""
        self.retry_after_s = max(batch_s, _SHORTEST_S)

    def end(self) -> None:
        """The batch was taken, was left to the instance's thread, or waits no longer."""
        self.retry_after_s = 0.0
