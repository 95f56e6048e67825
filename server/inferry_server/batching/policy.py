"""When a batch is due, and which requests may wait for one. Pure: time is passed in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchingPolicy:
    """The limits of one model's queue and batches.

    Attributes:
        max_batch_size: rows that one run of the model may have.
        max_queue_size: rows that may wait.
        max_queue_bytes: bytes of inputs that may wait.
        max_queue_delay_s: how long an idle device waits for a fuller batch. 0: it never waits,
            and batches form by themselves from what arrives while the device is busy.
    """

    max_batch_size: int
    max_queue_size: int
    max_queue_bytes: int
    max_queue_delay_s: float = 0.0

    def wait_s(self, *, queued_rows: int, oldest_age_s: float) -> float:
        """Seconds an idle device still waits before it takes what is queued; 0 means now."""
        if queued_rows >= self.max_batch_size:
            return 0.0
        return max(0.0, self.max_queue_delay_s - oldest_age_s)
