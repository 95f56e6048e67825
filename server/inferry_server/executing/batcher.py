"""The threads that turn queued requests into batches and outputs into replies."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from inferry_server.batching.batches import Queued
from inferry_server.batching.coalesced import CoalescedRequest, Member
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.relief import Load, Relief
from inferry_server.batching.request import InferenceRequest, PadTo, exact
from inferry_server.batching.scheduler import BatchScheduler
from inferry_server.batching.shared_room import SharedRoom
from inferry_server.batching.shedding import Shedding
from inferry_server.errors import ShedError
from inferry_server.executing.core_turns import OpenSeat, Seat
from inferry_server.executing.execution import BatchExecution
from inferry_server.executing.inline import InlineWork
from inferry_server.executing.observing import BatchObserver
from inferry_server.executing.request_queue import FailedBatch, RequestQueue
from inferry_server.lateness.ring import LateRequests
from inferry_server.signature import Run, Staging

Interrupter = Callable[[], Callable[[], None]]
_FAILED_LATELY_S = 1.0


class DynamicBatcher:
    """Runs one model, a batch at a time on each instance, as soon as anything waits.

    Any thread may call `submit`, `cancel` and `close`; none of them blocks on the model. A request
    waits for the batch that is running, then for those due before it; and before each of these
    batches, for the turns of other models on the same cores (`core_turns.py`). Every admitted request gets
    exactly one reply, unless it was cancelled: outputs, DeadlineExceededError, the model's error, or
    ShuttingDownError when it still waits at the timeout of `close`. `submit` refuses a request that has no
    room or would be late. Replies are made on the batcher's threads, so making one must be quick. With
    `inline`, short batches are computed, and their replies made, on the thread that reads requests.

    Args:
        name: of the threads.
        instances: computes a batch, one function a thread; all compute the same.
        policy: the limits.
        observer: told of batches.
        whole: of each instance; computes a request that shares no batch, neither cut nor padded. None: as `instances`.
        staging: of each instance, where its batches are put together; None where they may be anywhere. Only the thread
            whose turn it is at the instance writes there.
        interrupters: of each instance; asked for what ends the run that is under way. None where it cannot be ended.
        prepare: called by the thread of each instance, in order, before it runs a batch.
        latency: what is known of the device, from warming it up.
        pad_to: rows of a batch to the rows it runs with.
        batched: whether inputs and outputs have rows; without, requests run one at a time.
        seats: through which the instances take turns at the cores; None: they take no turns.
        inline: of the thread that reads requests; None: it computes nothing. For one instance that any
            thread can use.
        inline_batch_s: how long a batch may be expected to take that is computed inline.
        clock: monotonic seconds.
        cpu_clock: seconds for which the calling thread has had a core: of a batch that took far too long, they tell
            whether the model computed or the machine stood still.
        late: told of requests that took long.
        room: what may wait for all models together.

    Attributes:
        submit: queues a request, whose reply comes later, as `RequestQueue.submit`.
        shedding: whether requests are shed; a caller of `submit` looks at it before it queues a request.
        relief: whether requests that accept a variant of the model may be left to that; looked at before `submit` too.
    """

    def __init__(
        self,
        name: str,
        instances: Sequence[Run],
        policy: BatchingPolicy,
        *,
        observer: BatchObserver,
        whole: Sequence[Run] = (),
        staging: Sequence[Staging | None] = (),
        interrupters: Sequence[Interrupter] = (),
        prepare: Sequence[Callable[[], None]] = (),
        latency: LatencyModel | None = None,
        pad_to: PadTo = exact,
        batched: bool = True,
        seats: Sequence[Seat] | None = None,
        inline: InlineWork | None = None,
        inline_batch_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
        late: LateRequests | None = None,
        room: SharedRoom | None = None,
    ) -> None:
        if inline is not None and len(instances) > 1:
            raise ValueError(f"inline batches are for one instance, not for {len(instances)}")
        seats = self._seats = seats or [OpenSeat() for _ in instances]
        self._clock = clock
        self._batched = batched
        self._observer = observer
        self.relief = Relief()
        self.shedding = Shedding(lambda: observer.request_refused(ShedError(retry_after_s=0.0)))
        self._queue = RequestQueue(
            BatchScheduler(policy, latency or LatencyModel(policy.max_batch_size), instances=len(instances), room=room),
            clock,
            inline=inline or InlineWork(),
            inline_batch_s=inline_batch_s if inline is not None else 0.0,
            overran=observer.overran,
            shedding=self.shedding,
        )
        self._execution = BatchExecution(
            self._queue,
            observer,
            late=late or LateRequests(),
            pad_to=pad_to,
            batched=batched,
            whole=dict(zip(seats, whole, strict=False)),
            staging={seat: one for seat, one in zip(seats, staging, strict=False) if one is not None},
            clock=clock,
            cpu_clock=cpu_clock,
        )
        self._queue.compute_inline_by(partial(self._execution.compute_inline, instances[0], seats[0]))
        self.submit: Callable[[InferenceRequest], None] = self._queue.submit
        self._interrupters = dict(zip(seats, interrupters, strict=False))
        self._ended_since: dict[Seat, float] = {}  # the latest run that was ended
        self._prepared: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(run, seat, ready), name=f"batcher-{name}-{i}", daemon=True)
            for i, (run, seat, ready) in enumerate(
                zip(instances, seats, prepare or [_nothing] * len(instances), strict=True)
            )
        ]

    def start(self) -> None:
        """Begin to take requests from the queue, when every thread has prepared.

        Raises:
            Exception: the first that a thread met in preparing; no thread runs then.
        """
        for thread in self._threads:
            thread.start()
        errors = [error for _ in self._threads if (error := self._prepared.get()) is not None]
        if errors:
            self.close(0)
            raise errors[0]

    def queued(self, lane: Lane) -> Queued:
        """What waits in a lane."""
        return self._queue.queued(lane)

    def capacity_rows_per_s(self) -> float:
        """Rows that full batches would compute a second; 0 before any was measured."""
        return self._queue.capacity_rows_per_s()

    def load(self) -> Load:
        """What waits in the interactive lane, and what the model can do."""
        return self._queue.load()

    def fails(self) -> bool:
        """Whether the latest batch failed, within the last second."""
        return self._clock() - self._queue.failed_at < _FAILED_LATELY_S

    def compute_instead(self, base: str, rows: int) -> None:
        """Ask for earlier turns at the cores: rows of a base were queued here, because this model is its variant.

        Only if more than a batch waits, or requests were refused: with small batches, earlier turns would take more of
        the base's time than the variant saves it.
        """
        load = self.load()
        is_short = load.is_refusing or load.rows > load.batch_rows  # guard: degrade-turns-short
        if is_short and load.rows_per_s:  # else nothing is known of what they cost
            self._seats[0].compute_instead(base, rows * len(self._seats) / load.rows_per_s)

    def end_long_runs(self, *, unwanted_s: float, longest_s: float) -> tuple[float, Sequence[str]]:
        """End runs of the model whose requests were all cancelled, and runs that take too long. Any thread may call.

        Args:
            unwanted_s: how long a run may take, once all of its requests were cancelled.
            longest_s: how long any run may take; its requests fail.

        Returns:
            Seconds for which the longest run is under way, 0 if none is; and why runs were ended: `unwanted` or
            `too_long` for each, once, although it may take a run several calls to end.
        """
        now, oldest_s, ended = self._clock(), 0.0, []
        for seat, run in self._execution.under_way():
            since, slices = run
            took_s = now - since
            oldest_s = max(oldest_s, took_s)
            is_unwanted = took_s >= unwanted_s and all(part.request.settled for part in slices)  # guard: runs-unwanted
            if (is_unwanted or took_s >= longest_s) and seat in self._interrupters:  # guard: runs-too-long
                end = self._interrupters[seat]()
                # Else `end` has nothing to end, and the next run goes on.
                if self._execution.is_under_way(seat, run):  # guard: runs-right-one
                    end()
                    if self._ended_since.get(seat) != since:  # guard: runs-ended-once
                        ended.append("unwanted" if is_unwanted else "too_long")
                    self._ended_since[seat] = since
        return oldest_s, ended

    def cancel(self, request: InferenceRequest) -> bool:
        """Forget a request: what of it still waits will not be computed, and no reply will be made.

        Returns:
            False where it has its reply already.
        """
        cancelled = self._queue.settle(request)
        if cancelled:
            self._observer.request_cancelled()
        return cancelled

    def coalesces(self) -> bool:
        """Whether requests that are alike may be queued as one now, and are as well served so as one by one."""
        return self._batched and not self.relief.active and self._queue.coalesces()  # guard: coalesced-not-relieved

    def cancel_member(self, request: CoalescedRequest, member: Member) -> bool:
        """As `cancel`, one of the requests that were queued as one; its row is computed with the others'."""
        cancelled = self._queue.settle_member(request, member)
        if cancelled:
            self._observer.request_cancelled()
        return cancelled

    def refuse_new(self) -> None:
        """Refuse new requests from now on, as `close` does before it waits for the queued ones."""
        self._queue.close()

    def close(self, timeout_s: float) -> bool:
        """Refuse new requests and finish the queued ones; those left at the timeout get ShuttingDownError.

        Returns:
            Whether everything was computed in time.
        """
        ends = self._clock() + timeout_s
        self._queue.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, ends - self._clock()))
        left = self._execution.refuse_waiting()
        self._queue.leave_room()  # guard: room-given-back
        # else queue and execution would refer to each other, and the model would stay in memory
        self._queue.compute_inline_by(_nothing)  # guard: closing-model-goes
        return not left and not any(thread.is_alive() for thread in self._threads)

    def _serve(self, run: Run, seat: Seat, prepare: Callable[[], None]) -> None:
        try:
            prepare()
        except Exception as error:  # noqa: BLE001 - `start` raises it
            self._prepared.put(error)
            return
        self._prepared.put(None)
        try:
            while self._queue.wait_until_due(seat.leave):
                self._serve_next(run, seat)
        except Exception:  # noqa: BLE001 - nothing should come here; if it does, no caller may wait for ever
            self._execution.give_up()
        finally:
            seat.leave()

    def _serve_next(self, run: Run, seat: Seat) -> None:
        """Serve the next batch, if there is still one when its turn has come."""
        # No variable here holds the failed batch: its traceback refers to this frame, and would keep it in memory.
        self._execution.retry(run, seat, self._queue.next_failed() or self._execute_next(run, seat))

    def _execute_next(self, run: Run, seat: Seat) -> FailedBatch | None:
        taken = self._queue.take(waited_s=seat.acquire())  # after the turn: requests that came meanwhile join the batch
        return None if taken is None else self._queue.finished(taken, self._execution.execute(run, seat, taken))


def _nothing() -> None:
    """Nothing is to be prepared, or to be computed inline."""
