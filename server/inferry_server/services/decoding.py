"""Pictures to pixels, on threads of their own, so that decoding never holds up other requests."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from inferry_server.errors import QueueFullError

_RETRY_AFTER_S = 0.1


class DecodingPool:
    """Runs decoding jobs. Thread-safe; `submit` never blocks, and refuses what would wait too long.

    Args:
        threads: jobs that run at the same time.
        max_waiting: jobs that may wait for one of them.
        max_bytes: encoded pictures that may wait or be worked on.

    Attributes:
        is_closed: whether `close` was called.
    """

    def __init__(self, threads: int, *, max_waiting: int, max_bytes: int) -> None:
        self._max_jobs = threads + max_waiting
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._jobs = 0
        self._bytes = 0
        self.is_closed = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def submit(self, job: Callable[[], None], *, nbytes: int) -> None:
        """Run a job soon. The job deals with its own errors.

        Args:
            job: what to do.
            nbytes: of the pictures that it holds.

        Raises:
            QueueFullError: too many, or too much, is waiting.
        """
        with self._lock:
            self._check("requests to decode", self._jobs + 1, self._max_jobs)  # guard: pictures-waiting-bounded
            self._check(
                "bytes to decode", self._bytes + nbytes, self._max_bytes
            )  # guard: pictures-waiting-bounded-bytes
            self._jobs += 1
            self._bytes += nbytes
        self._pool.submit(job).add_done_callback(lambda _: self._release(nbytes))

    @property
    def unfinished(self) -> int:
        """Jobs that wait or run."""
        return self._jobs

    def close(self) -> None:
        """Take no more and drop what has not begun. A job that runs sees that it is closed, and ends."""
        self.is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, what: str, actual: int, limit: int) -> None:
        if actual > limit:
            raise QueueFullError(what, limit=limit, actual=actual, retry_after_s=_RETRY_AFTER_S)

    def _release(self, nbytes: int) -> None:
        with self._lock:
            self._jobs -= 1
            self._bytes -= nbytes
