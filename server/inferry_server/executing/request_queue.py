"""The scheduler of one model behind a lock, and whoever waits for it to have a batch."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from inferry_server.batching.policy import Lane
from inferry_server.batching.request import Arrays, BatchSlice, InferenceRequest
from inferry_server.batching.scheduler import BatchScheduler, TakenBatch
from inferry_server.batching.shedding import Shedding
from inferry_server.batching.steadiness import Steadiness
from inferry_server.errors import InferenceError, OverloadedError, QueueFullError, ShuttingDownError
from inferry_server.executing.inline import SpareTime, Work

FailedBatch = tuple[Sequence[BatchSlice], Exception]

_INVITED_S = 0.005  # in which the thread that reads requests begins, if it is awake and not overloaded


class RequestQueue:
    """Requests that wait, and whose they are to compute. Thread-safe.

    What is queued is computed by the instances' own threads, unless the thread that reads requests keeps
    it for its spare time: then theirs sleep until it lets go. It keeps short batches of requests that it
    read itself. Where an instance's thread was computing just then, that invites it afterwards: else the
    threads would go on as long as there is always a next batch.

    While more come than can be computed, and a full batch waits for that thread, requests are shed
    (`batching/shedding.py`).

    Args:
        scheduler: decides; of this queue alone.
        clock: monotonic seconds.
        spare: of the thread that reads requests.
        keep_up_to_s: how long a batch may be expected to take that is kept; nothing is kept below 0.
        overran: called under the lock, with its seconds, for the first batch that took so much longer that none
            is kept any more.
        shedding: whether requests for this model are refused before they are decoded.
    """

    def __init__(
        self,
        scheduler: BatchScheduler,
        clock: Callable[[], float],
        *,
        spare: SpareTime,
        keep_up_to_s: float,
        overran: Callable[[float], None] = lambda _: None,
        shedding: Shedding | None = None,
    ) -> None:
        self._shedding = shedding or Shedding()
        self._scheduler = scheduler
        self._clock = clock
        self._spare = spare
        self._steadiness = Steadiness(keep_up_to_s) if keep_up_to_s > 0 else None
        self._keep_up_to_s = keep_up_to_s
        if not scheduler.is_warmed:  # guard: inline-no-unmeasured
            self._keep_up_to_s = -1.0
        self._overran = overran
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closing = False
        self._kept = self._begun = False  # by the thread that reads requests
        self._kept_since = 0.0
        self._served = False  # by a thread of the instances
        self._wanted = False  # by the thread that reads requests, while another one served
        self._device_taken = False  # by another model, when a batch was kept
        self._failed: deque[FailedBatch] = deque()

    def lane_rows(self, lane: Lane) -> int:
        """Rows waiting in a lane, not counting the batches that run."""
        with self._lock:
            return self._scheduler.lane_rows(lane)

    def oldest_age_s(self, lane: Lane) -> float:
        """How long the request has waited that waits longest in a lane; 0 if none does."""
        with self._lock:
            return self._scheduler.oldest_age_s(lane, self._clock())

    def submit(self, request: InferenceRequest, serve: Work) -> None:
        """Queue a request, and see that somebody computes it.

        Args:
            request: validated.
            serve: what the thread that reads requests is to do, if it keeps it.

        Raises:
            ShuttingDownError: `close` was called.
            ServingError: as `BatchScheduler.admit`.
        """
        with self._lock:
            if self._closing:  # guard: closing-nothing-new
                raise ShuttingDownError
            now = self._clock()
            try:
                self._scheduler.admit(request, now)
            except (OverloadedError, QueueFullError):
                self._shedding.refused(now)  # guard: shed-real-refusals
                self._shed_if_full(now)
                raise
            if request.trace is not None:
                request.trace.queued_at = now
            if self._kept:  # guard: cost-nobody-woken
                self._shed_if_full(now)
            elif not self._keep(now, serve):
                self._changed.notify()

    def settle(self, request: InferenceRequest) -> bool:
        """Forget a request: what of it still waits will not be computed.

        Returns:
            False where it was settled before.
        """
        with self._lock:
            return self._scheduler.settle(request)

    def wait_until_due(self, idle: Callable[[], None], serve: Work) -> bool:
        """Wait, on a thread of the instances, for something to compute that nobody keeps.

        Args:
            idle: called before it waits for requests, under the lock.
            serve: what the thread that reads requests is to do, if it is invited.

        Returns:
            False once closed and empty.
        """
        with self._lock:
            self._served = False
            while True:
                timeout_s: float | None = _INVITED_S
                if not self._kept:  # guard: inline-thread-wakes
                    now = self._clock()
                    is_due = self._is_due(now)
                    if self._failed or (is_due and not self._can_invite()):
                        break
                    if not is_due and self._closing:  # whatever waits would be due
                        return False
                    idle()
                    if is_due:
                        self._kept, self._kept_since, self._wanted = True, now, False
                        self._spare.do_soon(serve)
                    else:
                        self._device_taken = False
                        timeout_s = self._scheduler.wait_s(now)
                elif self._begun:
                    timeout_s = None
                if not self._changed.wait(timeout_s) and self._kept and not self._begun:  # guard: inline-nobody-comes
                    self._kept = False  # who keeps it does not come to it
                    self._shedding.end()
                    break
            self._served = True
            return True

    def has_due(self) -> bool:
        """Whether a batch could be taken now."""
        with self._lock:
            return self._is_due(self._clock())

    def take(self, waited_s: float) -> TakenBatch | None:
        """The next batch, for a thread of the instances; None if it was cancelled meanwhile, or another took it.

        Args:
            waited_s: for its turn at the device.
        """
        with self._lock:
            now = self._clock()
            return self._scheduler.take_batch(now, waited_s=waited_s) if self._is_due(now) else None

    def take_kept(self, try_turn: Callable[[], bool], idle: Callable[[], None]) -> TakenBatch | None:
        """The next batch, for the thread that keeps it; None if there is none, or it is for the others after all.

        Args:
            try_turn: whether the device can be had at once.
            idle: called under the lock, if nothing is to be computed.
        """
        with self._lock:
            if not self._kept:
                return None
            now = self._clock()
            if not self._is_due(now):
                self._let_go(idle)
                return None
            if self._is_short() and try_turn():  # guard: inline-only-short, inline-nobody-waits
                self._begun = True
                self._shedding.end()
                return self._scheduler.take_batch(now, waited_s=now - self._kept_since)
            self._device_taken = self._is_short()
            self._let_go(idle)
            return None

    def kept_done(self, failed: FailedBatch | None, idle: Callable[[], None], serve: Work) -> None:
        """The batch that was kept is done: keep what has come meanwhile, or let go.

        Args:
            failed: the batch, if it failed: it is for the others, for its members run one by one.
            idle: called under the lock, if nothing is to be computed.
            serve: what this thread is to do, if it keeps more.
        """
        with self._lock:
            self._kept = self._begun = False
            if failed is not None:
                self._failed.append(failed)
            if not self._keep(self._clock(), serve):
                self._let_go(idle)

    def next_failed(self) -> FailedBatch | None:
        """A batch that failed where it was kept, and whose members have no answer yet."""
        with self._lock:
            return self._failed.popleft() if self._failed else None

    def finished(
        self, batch: TakenBatch, batch_s: float, computed_s: Callable[[], float], *, failed: bool = False
    ) -> None:
        """A batch has been answered, or has failed, so long after it was taken.

        Args:
            batch: from `take` or `take_kept`.
            batch_s: that long.
            computed_s: how long the calling thread had a core meanwhile; asked only after a batch that took long.
            failed: whether it has no outputs.
        """
        with self._lock:
            steadiness = self._steadiness
            if steadiness is not None:
                had_core_s = computed_s() if batch_s > steadiness.overrun_s else batch_s
                if steadiness.observe(self._scheduler.batch_s(batch), batch_s, had_core_s):
                    self._overran(batch_s)
                self._keep_up_to_s = steadiness.limit_s
            self._scheduler.finished(batch, None if failed else batch_s)

    def collect(
        self, slices: Sequence[BatchSlice], outputs: Sequence[Arrays], *, assembly_s: float, compute_s: float
    ) -> tuple[list[tuple[InferenceRequest, Arrays]], list[tuple[InferenceRequest, InferenceError]]]:
        """Give the requests of a batch the outputs of their rows; with the last of them a request is settled.

        Returns:
            Those that have all their outputs now, unless nobody wants them any more; and those whose parts do not
            fit together, which are settled with that.
        """
        whole: list[tuple[InferenceRequest, Arrays]] = []
        unfit: list[tuple[InferenceRequest, InferenceError]] = []
        with self._lock:
            for part, rows in zip(slices, outputs, strict=True):
                request = part.request
                # cancelled, or another part of it failed
                if request.settled:  # guard: answers-none-after
                    continue
                try:
                    joined = request.collect(part.start, rows, part.rows, assembly_s=assembly_s, compute_s=compute_s)
                except InferenceError as error:
                    self._scheduler.settle(request)
                    unfit.append((request, error))
                    continue
                if joined is not None:
                    self._scheduler.settle(request)
                    whole.append((request, joined))
        return whole, unfit

    def close(self) -> None:
        """Refuse new requests; what waits is due."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()

    def settle_all(self) -> tuple[InferenceRequest, ...]:
        """Settle everything that waits, and return it."""
        with self._lock:
            return self._scheduler.settle_all()  # guard: closing-left-told

    def _shed_if_full(self, now: float) -> None:
        """Read no more requests for this model while the thread that reads them keeps a full batch of it."""
        is_full = self._kept and self._scheduler.is_full()  # guard: shed-full-batch
        if is_full and self._shedding.begin(now, self._scheduler.next_batch_s()):
            self._spare.shedding = self._shedding

    def _is_due(self, now: float) -> bool:
        wait_s = self._scheduler.wait_s(now)
        return wait_s is not None and (wait_s == 0 or self._closing)  # guard: closing-queued-finished

    def _is_short(self) -> bool:
        return self._scheduler.next_batch_s() <= self._keep_up_to_s

    def _keep(self, now: float, serve: Work) -> bool:
        """Keep what is queued for the calling thread, if that is the one that reads requests."""
        if self._failed or not self._spare.is_here() or not self._is_short() or not self._is_due(now):
            return False
        if self._served:  # guard: inline-not-while
            self._wanted = True
            return False
        self._spare.do_soon(serve)
        self._kept, self._kept_since = True, now
        self._shed_if_full(now)
        return True

    def _can_invite(self) -> bool:
        """Whether the thread that reads requests should have the next batch."""
        return self._wanted and not self._closing and not self._device_taken and self._is_short()

    def _let_go(self, idle: Callable[[], None]) -> None:
        """What there is, or will be, is for the threads of the instances; they are not woken for nothing."""
        self._kept = self._begun = False
        self._shedding.end()
        if self._failed or self._closing or self._scheduler.rows:  # guard: inline-left-behind
            self._changed.notify_all()
        else:
            idle()
