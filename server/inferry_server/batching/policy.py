"""The limits of one model's queue and batches. Pure: time is passed in."""

import enum
from dataclasses import dataclass

MOST_BATCH_ROWS = 65_536
"""What `max_batch_size` may be at most: a batch that large keeps any device busy."""


class Lane(enum.Enum):
    """The two queues of a model: interactive requests wait in one, bulk work in the other."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


# For what runs with every request: looking up a member of an enumeration takes five times as long as a name does.
INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


def lane_of(priority: int) -> Lane:
    """The lane of a request by its priority as Triton counts it: 1 is the highest, and 0 that none is stated."""
    return BULK if priority > 1 else INTERACTIVE


@dataclass(frozen=True)
class BatchingPolicy:
    """How requests may wait and be put together.

    Attributes:
        max_batch_size: rows that may be taken together.
        max_request_rows: rows that one request may have; larger than a batch, it is cut into several.
        max_queue_size: rows that may wait in each lane; a request that finds its lane empty may have more.
        max_queue_bytes: bytes of inputs that may wait in each lane.
        max_reply_bytes: bytes that the outputs of one request may have, and those of one run, as far as shapes tell.
        max_queue_delay_s: how long an idle device waits for a fuller batch. 0: it never waits,
            and batches form by themselves from what arrives while the device is busy.
        interactive_batches_per_bulk: while both lanes wait, a bulk batch follows so many
            interactive ones: bulk work never starves, and never has two batches before an interactive one.
        patience_s: for how long after its arrival later requests that are due earlier may go before a request,
            whatever its deadline; a request without a deadline is due so long after its arrival.
        small_batch_size: rows of a batch where it matters more how soon it is done than how much is computed: an
            idle device waits for no more, and bulk work has no more for a second after an interactive request (less
            where smaller batches compute nearly as many rows a second).
            None: `max_batch_size`.
        bulk_batch_size: rows of a batch of bulk work while no interactive requests come; at least `max_batch_size`.
            None: `max_batch_size`.
    """

    max_batch_size: int
    max_request_rows: int
    max_queue_size: int
    max_queue_bytes: int
    max_reply_bytes: int = 1 << 30
    max_queue_delay_s: float = 0.0
    interactive_batches_per_bulk: int = 4
    patience_s: float = 1.0
    small_batch_size: int | None = None
    bulk_batch_size: int | None = None

    def wait_s(self, *, queued_rows: int, oldest_age_s: float) -> float:
        """Seconds an idle device still waits before it takes what is queued; 0 means now."""
        enough = self.small_batch_size or self.max_batch_size  # guard: small-batch-enough
        if queued_rows >= min(enough, self.max_queue_size):
            return 0.0
        return max(0.0, self.max_queue_delay_s - oldest_age_s)
