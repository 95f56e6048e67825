"""Pictures to pixels, on threads of their own, so that decoding never holds up other requests."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from inferry_server.errors import QueueFullError

_WAITING_PER_THREAD = 64  # requests; beyond that, decoding is the bottleneck and waiting only adds latency
_RETRY_AFTER_S = 0.1


class DecodingPool:
    """Runs decoding jobs. Thread-safe; `submit` never blocks, and refuses what would wait too long."""

    def __init__(self, threads: int) -> None:
        self._limit = threads * (1 + _WAITING_PER_THREAD)
        self._room = threading.Semaphore(self._limit)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job soon. The job deals with its own errors.

        Raises:
            QueueFullError: too many are waiting.
        """
        if not self._room.acquire(blocking=False):
            raise QueueFullError(
                "requests to decode", limit=self._limit, actual=self._limit + 1, retry_after_s=_RETRY_AFTER_S
            )
        self._pool.submit(job).add_done_callback(lambda _: self._room.release())

    def close(self) -> None:
        """Finish what was submitted."""
        self._pool.shutdown()
