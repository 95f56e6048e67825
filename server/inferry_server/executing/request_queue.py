"""The queue of one model: its scheduler behind a lock, and the threads that wait for a batch."""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from inferry_proto.datatypes import Arrays
from inferry_server.batching.batches import Collected, NextBatch, Queued, TakenBatch
from inferry_server.batching.coalesced import CoalescedRequest, Member
from inferry_server.batching.latency import Steadiness
from inferry_server.batching.ownership import INLINE_HOLDERS, TRANSITIONS, Event, Holder
from inferry_server.batching.policy import Lane
from inferry_server.batching.relief import Load
from inferry_server.batching.request import BatchSlice, InferenceRequest
from inferry_server.batching.scheduler import BatchScheduler
from inferry_server.batching.shedding import Shedding
from inferry_server.errors import DeadlineExceededError, OverloadedError, QueueFullError, ShuttingDownError
from inferry_server.executing.inline import InlineWork, Work

FailedBatch = tuple[Sequence[BatchSlice], Exception]


class Ran(NamedTuple):
    """How a batch that was taken ended.

    Attributes:
        batch_s: from the start of its assembly to the last reply, or to its failure.
        cpu_s: for how long the computing thread had a core meanwhile.
        failed: the batch, if it failed and its members have no replies yet.
    """

    batch_s: float
    cpu_s: float
    failed: FailedBatch | None


# Looking up a member of an enumeration takes five times as long as a name does: these are needed for every batch.
_OFFERED, _READ, _BEGUN, _MORE, _LEFT = Holder.OFFERED, Event.READ, Event.BEGUN, Event.MORE, Event.LEFT

_REFUSING_S = 1.0
_OFFERED_S = 0.005  # in which the reading thread begins, if it is awake and not overloaded


class RequestQueue:
    """Requests that wait, and which thread computes them. Thread-safe; under its lock that of the cores may be taken.

    Any thread calls `submit`, `settle` and `close`. The instances' threads call `wait_until_due` and `take`. The
    reading thread, which reads requests, calls `take_inline` and `inline_done`. The table in `batching/ownership.py`
    says which of them computes the next batch.

    While more requests come than can be computed, and a full batch waits, requests are shed (`batching/shedding.py`).

    Args:
        scheduler: decides; of this queue alone.
        clock: monotonic seconds.
        inline: the pending work of the reading thread.
        inline_batch_s: how long a batch may be expected to take that is computed inline; below 0 none is.
        overran: called once, under the lock, with the seconds of the batch that took so much longer that no batch is
            computed inline any more.
        shedding: whether requests for this model are refused before they are queued.

    Attributes:
        serves_alone: whether requests share no batches any more. It changes once, under the lock.
        failed_at: when the latest batch failed; minus infinity where it did not.
    """

    def __init__(
        self,
        scheduler: BatchScheduler,
        clock: Callable[[], float],
        *,
        inline: InlineWork,
        inline_batch_s: float,
        overran: Callable[[float], None] = lambda _: None,
        shedding: Shedding | None = None,
    ) -> None:
        self.serves_alone = False
        self.failed_at = -math.inf
        self._shedding = shedding or Shedding()
        self._scheduler = scheduler
        self._clock = clock
        self._inline_work = inline
        self._steadiness = Steadiness(inline_batch_s) if inline_batch_s > 0 else None
        self._inline_batch_s = inline_batch_s
        if not scheduler.is_warmed:  # guard: inline-no-unmeasured
            self._inline_batch_s = -1.0
        self._overran = overran
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closing = False
        self._holder = Holder.NOBODY
        self._offered_at = 0.0
        self._failed: deque[FailedBatch] = deque()
        self._compute_inline: Work = _nothing

    def queued(self, lane: Lane) -> Queued:
        """What waits in a lane."""
        with self._lock:
            return self._scheduler.queued(lane, self._clock())

    def capacity_rows_per_s(self) -> float:
        """Rows that full batches would compute a second; 0 before any was measured."""
        with self._lock:
            return self._scheduler.capacity_rows_per_s()

    def load(self) -> Load:
        """What waits in the interactive lane, and what the version can do."""
        with self._lock:
            return self._scheduler.load(is_refusing=self._clock() < self._shedding.refused_at + _REFUSING_S)

    def leave_room(self) -> None:
        """Nothing will be queued any more: its share of the room of all models is for the others."""
        with self._lock:
            self._scheduler.leave_room()

    def compute_inline_by(self, compute_inline: Work) -> None:
        """Say what the reading thread is to run when it is offered a batch; before the first request."""
        self._compute_inline = compute_inline

    def submit(self, request: InferenceRequest) -> None:
        """Queue a validated request, and see that a thread computes it.

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
                if request.is_coalesced:  # guard: coalesced-refusal
                    self._scheduler.apart_at = now
                    raise
                if request.lane is not Lane.BULK:  # guard: shed-not-by-bulk
                    self._shedding.refused(now)  # guard: shed-real-refusals
                self._shed_if_full(now)
                raise
            except DeadlineExceededError:
                if request.is_coalesced:  # guard: coalesced-late
                    self._scheduler.apart_at = now
                raise
            if request.trace is not None:
                request.trace.queued_at = now
            has_inline = self._holder in INLINE_HOLDERS or (
                self._is_reader() and self._offer(_READ, now, self._scheduler.next_batch(now))
            )
            if not has_inline:  # guard: cost-nobody-woken
                self._changed.notify()
            self._shed_if_full(now)

    def serve_alone(self) -> bool:
        """Let requests share no batches from now on.

        Returns:
            False where that was so before.
        """
        with self._lock:
            first = not self.serves_alone
            if first:
                self._scheduler.serve_alone()
                self.serves_alone = True
            return first

    def settle(self, request: InferenceRequest) -> bool:
        """Forget a request: what of it still waits will not be computed.

        Returns:
            False where it was settled before.
        """
        with self._lock:
            settled = self._scheduler.settle(request)
            if self._shedding.retry_after_s and not self._scheduler.is_full():
                self._shedding.end()  # guard: shed-cancelled
            return settled

    def settle_member(self, request: CoalescedRequest, member: Member) -> bool:
        """Forget one of the requests that were queued as one.

        Returns:
            False where it was settled before.
        """
        with self._lock:
            settled = self._scheduler.settle_member(request, member)
            if self._shedding.retry_after_s and not self._scheduler.is_full():
                self._shedding.end()
            return settled

    def take_apart(self, request: CoalescedRequest) -> Sequence[InferenceRequest]:
        """The requests that were queued as one, and whose batch failed, each by itself; none where it is settled."""
        with self._lock:
            if request.settled:
                return ()
            singles, now = request.apart(), self._clock()
            for single in singles:
                single.waiting_rows = 0  # it left the queue
                single.started(now)
            return singles

    def take_apart_settled(self, request: CoalescedRequest) -> Sequence[InferenceRequest]:
        """As `take_apart`, where they were computed together: each is settled too, for its reply is made now."""
        with self._lock:
            singles = request.apart()
            for single in singles:
                single.waiting_rows, single.settled = 0, True
            return singles

    def coalesces(self) -> bool:
        """Whether like requests may be queued as one now: they share batches, and each of late got what it came for."""
        refused_at = max(self._shedding.refused_at, self.failed_at, self._scheduler.apart_at)
        if self.serves_alone or self._shedding.retry_after_s:  # guard: coalesced-not-shedding
            return False
        return self._clock() - refused_at >= _REFUSING_S  # guard: coalesced-not-refusing

    def wait_until_due(self, idle: Callable[[], None]) -> bool:
        """Wait, on a thread of the instances, for something that this thread is to compute.

        Args:
            idle: called before it waits for requests, under the lock.

        Returns:
            False once closed and empty.
        """
        with self._lock:
            while True:
                timeout_s: float | None = None
                if self._holder not in INLINE_HOLDERS:  # guard: inline-thread-wakes
                    now = self._clock()
                    waiting = self._scheduler.next_batch(now)
                    is_due = waiting is not None and (not waiting.wait_s or self._closing)
                    if not is_due and not self._failed and self._closing:  # whatever waits would be due
                        return False
                    self._holder = TRANSITIONS[self._holder][self._event(waiting, is_due=is_due)]
                    if self._holder is not Holder.NOBODY and self._holder is not _OFFERED:
                        return True
                    idle()
                    if self._holder is _OFFERED:
                        self._offered_at = now
                        self._inline_work.pending.append(self._compute_inline)
                    elif waiting is not None:
                        timeout_s = waiting.wait_s
                if self._holder is _OFFERED:
                    timeout_s = _OFFERED_S
                if not self._changed.wait(timeout_s) and self._holder is _OFFERED:  # guard: inline-nobody-comes
                    self._holder = TRANSITIONS[self._holder][Event.NOT_TAKEN]
                    if self._shedding.retry_after_s:
                        self._shedding.end()
                    return True

    def take(self, waited_s: float) -> TakenBatch | None:
        """The next batch, for a thread of the instances; None if it was cancelled meanwhile, or another took it.

        Args:
            waited_s: for its turn at the device.
        """
        with self._lock:
            now = self._clock()
            if self._shedding.retry_after_s:
                self._shedding.end()
            return None if self._due(now) is None else self._scheduler.take_batch(now, waited_s=waited_s)

    def take_inline(self, try_turn: Callable[[], bool], idle: Callable[[], None]) -> TakenBatch | None:
        """The next batch, for the reading thread; None if none is offered, or an instance's thread is to compute it.

        Args:
            try_turn: whether the device can be had at once.
            idle: called under the lock, if nothing is to be computed.
        """
        with self._lock:
            if self._holder is not _OFFERED:
                return None
            now = self._clock()
            waiting = self._scheduler.next_batch(now)
            is_short = waiting is not None and self._may_be_inline(waiting)
            if is_short and try_turn():  # guard: inline-only-short, inline-nobody-waits
                self._holder = TRANSITIONS[self._holder][_BEGUN]
                if self._shedding.retry_after_s:
                    self._shedding.end()
                return self._scheduler.take_batch(now, waited_s=now - self._offered_at)
            self._leave(Event.NO_CORES if is_short else _LEFT, waiting, idle)
            return None

    def inline_done(self, batch: TakenBatch, ran: Ran | None, idle: Callable[[], None]) -> None:
        """The inline batch is done: the reading thread is offered what has come meanwhile, or leaves it.

        Args:
            batch: from `take_inline`.
            ran: how it ended; None where nothing of it was left to be computed. One that failed is for the others, for
                its members run one by one.
            idle: called under the lock, if nothing is to be computed.
        """
        with self._lock:
            if ran is not None:
                self._learn(batch, ran)
                if ran.failed is not None:
                    self._failed.append(ran.failed)
            now = self._clock()
            waiting = self._scheduler.next_batch(now)
            if waiting is None or not (self._is_reader() and self._offer(_MORE, now, waiting)):
                self._leave(_LEFT, waiting, idle)
            else:
                self._shed_if_full(now)

    def next_failed(self) -> FailedBatch | None:
        """A batch that failed inline, and whose members have no reply yet."""
        with self._lock:
            return self._failed.popleft() if self._failed else None

    def finished(self, batch: TakenBatch, ran: Ran | None) -> FailedBatch | None:
        """A batch that a thread of the instances took has its replies, or has failed.

        Args:
            batch: from `take`.
            ran: how it ended; None where nothing of it was left to be computed.

        Returns:
            The batch, if it failed.
        """
        if ran is None:
            return None
        with self._lock:
            self._learn(batch, ran)
        return ran.failed

    def collect(
        self, slices: Sequence[BatchSlice], outputs: Sequence[Arrays], *, assembly_s: float, compute_s: float
    ) -> tuple[Collected, bool]:
        """Give the requests of a batch the outputs of their rows, as `BatchScheduler.collect`.

        Returns:
            What that says; and whether a next batch could be taken now.
        """
        with self._lock:
            collected = self._scheduler.collect(
                slices, outputs, self._clock(), assembly_s=assembly_s, compute_s=compute_s
            )
            return collected, collected.following is not None and self._is_due(collected.following)

    def close(self) -> None:
        """Refuse new requests; what waits is due."""
        with self._lock:
            self._closing = True
            self._shedding.end()  # guard: shed-closed
            self._changed.notify_all()

    def settle_all(self) -> tuple[InferenceRequest, ...]:
        """Settle everything that waits, and return it."""
        with self._lock:
            return self._scheduler.settle_all()  # guard: closing-left-told

    def _shed_if_full(self, now: float) -> None:
        """Shed requests if a full batch waits and one was refused lately.

        Calls are refused unread while the batch waits for the reading thread, which takes it soon.
        """
        if now >= self._shedding.needed_until:  # guard: shed-only-lately
            return
        is_full = self._scheduler.is_full()  # guard: shed-full-batch
        if is_full and (waiting := self._scheduler.next_batch(now)) is not None:
            self._shedding.begin(waiting.batch_s)
            is_soon = self._holder in INLINE_HOLDERS
            self._inline_work.shedding = self._shedding if is_soon else None  # guard: shed-unread-shortly

    def _learn(self, batch: TakenBatch, ran: Ran) -> None:
        steadiness = self._steadiness
        if steadiness is not None:
            computed_s = min(ran.batch_s, ran.cpu_s)  # guard: inline-stall-forgiven
            if steadiness.observe(batch.done_at - batch.taken_at, computed_s):
                self._overran(ran.batch_s)
            self._inline_batch_s = steadiness.limit_s
        self.failed_at = -math.inf if ran.failed is None else batch.taken_at + ran.batch_s
        self._scheduler.finished(batch, ran.batch_s if ran.failed is None else None)

    def _due(self, now: float) -> NextBatch | None:
        """The next batch, if it could be taken now."""
        waiting = self._scheduler.next_batch(now)
        return waiting if waiting is not None and self._is_due(waiting) else None

    def _is_due(self, waiting: NextBatch) -> bool:
        return not waiting.wait_s or self._closing  # guard: closing-queued-finished

    def _may_be_inline(self, waiting: NextBatch) -> bool:
        return self._is_due(waiting) and waiting.batch_s <= self._inline_batch_s

    def _is_reader(self) -> bool:
        """Whether the calling thread is the reading thread."""
        return threading.get_ident() == self._inline_work.thread

    def _event(self, waiting: NextBatch | None, *, is_due: bool) -> Event:
        """The event that a thread of the instances is free, by what waits."""
        if self._failed or waiting is None or not is_due:
            return Event.DUE if self._failed else Event.IDLE
        return Event.DUE if self._closing or waiting.batch_s > self._inline_batch_s else Event.FREE

    def _offer(self, event: Event, now: float, waiting: NextBatch | None) -> bool:
        """Offer what waits to the calling thread, the reading thread, if it may compute that."""
        if self._failed or waiting is None or not self._may_be_inline(waiting):
            return False
        self._holder = TRANSITIONS[self._holder][event]
        if self._holder is not _OFFERED:  # guard: inline-not-while
            return False
        self._inline_work.pending.append(self._compute_inline)
        self._offered_at = now
        return True

    def _leave(self, event: Event, waiting: NextBatch | None, idle: Callable[[], None]) -> None:
        """The reading thread computes no more: wake the threads of the instances, if anything is to be computed."""
        self._holder = TRANSITIONS[self._holder][event]
        if self._shedding.retry_after_s:
            self._shedding.end()
        if self._failed or self._closing or waiting is not None:  # guard: inline-left-behind
            self._changed.notify_all()
        else:
            idle()


def _nothing() -> None:
    """The reading thread has nothing to run before `compute_inline_by` was called."""
