"""The limits of one model's queue and batches. Pure: what decides is passed the time."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

MOST_BATCH_ROWS = 65_536
"""What `max_batch_size` may be at most: a batch that large keeps any device busy."""


class Lane(enum.Enum):
    """Who waits: people, or jobs. Each lane has a queue of its own."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True)
class BatchingPolicy:
    """How requests may wait and be put together.

    Attributes:
        max_batch_size: rows that one run of the model may have.
        max_request_rows: rows that one request may have; larger than a batch, it is cut into several.
        max_queue_size: rows that may wait in each lane; a request that finds its lane empty may have more.
        max_queue_bytes: bytes of inputs that may wait in each lane.
        max_queue_delay_s: how long an idle device waits for a fuller batch. 0: it never waits,
            and batches form by themselves from what arrives while the device is busy.
        interactive_batches_per_bulk: while both lanes wait, a bulk batch follows so many
            interactive ones: bulk work never starves, and never runs twice before people.
        patience_s: how long a request may be overtaken by later ones that are due earlier, whatever its
            deadline; without a deadline it stands where one with so much time would.
        parallel_runs: runs that what is taken together may be cut into, if it is more than one run may
            have; they are computed at the same time, as one batch.
    """

    max_batch_size: int
    max_request_rows: int
    max_queue_size: int
    max_queue_bytes: int
    max_queue_delay_s: float = 0.0
    interactive_batches_per_bulk: int = 4
    patience_s: float = 1.0
    parallel_runs: int = 1

    @property
    def most_rows(self) -> int:
        """Rows that are taken together at most."""
        return self.max_batch_size * self.parallel_runs

    def runs(self, rows: int) -> Sequence[int]:
        """The rows of each run that a batch is computed in: as many in each, to within one, and one at least."""
        if rows <= self.max_batch_size or self.parallel_runs == 1:  # guard: parallel-runs-no-run
            return (rows,)
        count = min(rows, self.parallel_runs)  # guard: parallel-runs-none
        least, more = divmod(rows, count)
        return (least + 1,) * more + (least,) * (count - more)

    def wait_s(self, *, queued_rows: int, oldest_age_s: float) -> float:
        """Seconds an idle device still waits before it takes what is queued; 0 means now."""
        if queued_rows >= min(self.max_batch_size, self.max_queue_size):
            return 0.0
        return max(0.0, self.max_queue_delay_s - oldest_age_s)
