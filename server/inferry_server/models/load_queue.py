"""Changes of what is served, in their order and apart from one another: one that does not end holds up no other."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from inferry_server.errors import QueueFullError, ShuttingDownError

Done = Callable[[Exception | None], None]

MOST_WAITING = 64
_MOST_RUNNING = 4
_PATIENCE_S = 2.0  # most models are loaded in less; while one is, its warm-up is measured, and wants the cores
_RETRY_AFTER_S = 1.0


@dataclass(eq=False)
class Job:
    """One change of one model."""

    model: str
    run: Callable[[], None]
    done: Done
    began: float = math.inf
    ended: threading.Event = field(default_factory=threading.Event)


class LoadQueue:
    """Runs jobs, each on a thread of its own. Thread-safe; no method waits for a job but `close`.

    Jobs begin in the order in which they were submitted. Two jobs of one model never run at the same time. A job waits
    for those before it; one that has run for `patience_s` holds up nobody any more, until `most_running` of them do.

    Args:
        most_waiting: jobs of clients that may wait; more are refused.
        most_running: jobs at the same time.
        patience_s: how long a job has the machine for itself.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        most_waiting: int = MOST_WAITING,
        most_running: int = _MOST_RUNNING,
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_waiting = most_waiting
        self._most_running = most_running
        self._patience_s = patience_s
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._dispatcher: threading.Thread | None = None
        self._closed = False

    def submit(self, model: str, run: Callable[[], None], done: Done, *, bounded: bool = True) -> Job:
        """Run a job soon.

        Args:
            model: that it changes.
            run: the change; may raise.
            done: told how it went, once, unless the job is dropped. On another thread.
            bounded: whether it may be refused.

        Raises:
            QueueFullError: too many wait.
            ShuttingDownError: `close` was called.
        """
        job = Job(model, run, done)
        with self._changed:
            if self._closed:
                raise ShuttingDownError
            if bounded and len(self._waiting) >= self._most_waiting:  # guard: loads-bounded
                raise QueueFullError(
                    "loads", limit=self._most_waiting, actual=len(self._waiting) + 1, retry_after_s=_RETRY_AFTER_S
                )
            self._waiting.append(job)
            if self._dispatcher is None:
                self._dispatcher = threading.Thread(target=self._dispatch, name="models", daemon=True)
                self._dispatcher.start()
            self._changed.notify_all()
        return job

    def drop(self, job: Job) -> None:
        """Forget a job that has not begun: whoever wanted it has gone. One that runs goes on."""
        with self._changed:
            if job in self._waiting:  # guard: loads-dropped
                self._waiting.remove(job)
                job.ended.set()

    def is_busy(self, model: str) -> bool:
        """Whether a job of this model waits or runs."""
        with self._changed:
            return any(job.model == model for job in (*self._waiting, *self._running))

    def close(self) -> tuple[Job, ...]:
        """Begin no job any more; those that wait are told that the server goes away.

        Returns:
            The jobs that run.
        """
        with self._changed:
            self._closed = True
            waiting, running = tuple(self._waiting), tuple(self._running)
            self._waiting.clear()
            self._changed.notify_all()
        for job in waiting:
            job.done(ShuttingDownError())
            job.ended.set()
        return running

    def _dispatch(self) -> None:
        with self._changed:
            while not self._closed:
                now = self._clock()
                job = self._next(now)
                if job is None:
                    self._changed.wait(self._wait_s(now))
                    continue
                self._waiting.remove(job)
                job.began = now
                self._running.append(job)
                threading.Thread(target=self._run, args=(job,), name="model-change", daemon=True).start()

    def _next(self, now: float) -> Job | None:
        """The job that may begin now; None if there is none."""
        if len(self._running) >= self._most_running:
            return None
        if any(now - job.began < self._patience_s for job in self._running):  # guard: loads-one-at-a-time
            return None
        busy = {job.model for job in self._running}
        return next((job for job in self._waiting if job.model not in busy), None)  # guard: loads-one-of-a-model

    def _wait_s(self, now: float) -> float | None:
        """Until a job that runs holds up the others no longer; None where nothing waits for that."""
        young = [self._patience_s - (now - job.began) for job in self._running if now - job.began < self._patience_s]
        return max(young) if self._waiting and young else None

    def _run(self, job: Job) -> None:
        error: Exception | None = None
        try:
            job.run()
        except Exception as raised:  # noqa: BLE001 - whoever asked is told
            error = raised
        with self._changed:
            self._running.remove(job)
            closed = self._closed
            self._changed.notify_all()
        try:
            job.done(ShuttingDownError() if closed and error is not None else error)
        finally:
            job.ended.set()
