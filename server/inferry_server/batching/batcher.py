"""The threads that turn queued requests into batches and outputs into replies."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from inferry_server.batching.assembly import PadTo, aligned, assemble, check_rows, exact, scatter_outputs
from inferry_server.batching.gate import OpenSeat, Seat
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy, Lane
from inferry_server.batching.request import Arrays, BatchSlice, InferenceRequest, Timing
from inferry_server.batching.scheduler import BatchScheduler, TakenBatch
from inferry_server.errors import InferenceError, ServingError, ShuttingDownError
from inferry_server.request_trace import TracedBatch

logger = logging.getLogger(__name__)

Run = Callable[[Arrays], Arrays]


class BatchObserver(Protocol):
    """Who is told about batches, for metrics and statistics. Called on a batcher's thread."""

    def batch_done(self, *, rows: int, assembly_s: float, compute_s: float) -> None:
        """A batch of so many rows was put together and computed."""

    def request_done(self, *, rows: int, timing: Timing, output_s: float, total_s: float) -> None:
        """A request was answered: making its reply took `output_s`, everything `total_s`."""

    def request_failed(self, *, total_s: float) -> None:
        """A request that was admitted got an error."""

    def request_refused(self, error: ServingError) -> None:
        """Told besides, where it was not computed at all."""


class DynamicBatcher:
    """Runs one model, a batch at a time on each instance, as soon as anything waits.

    Any thread may call `submit`, `cancel` and `close`; none of them blocks on the model. A request
    waits for the batch that is running, then for those due before it; and before each of these
    batches, for the turns of other models on the same cores (`gate.py`). Every admitted request gets
    exactly one reply, unless it was cancelled: outputs, DeadlineExceededError, the model's error, or
    ShuttingDownError when `close` runs out of patience. What has no room or no chance is refused by
    `submit`. Replies are made on the batcher's threads, so a reply must be quick.

    Args:
        name: of the threads.
        instances: computes a batch, one function a thread; all compute the same.
        policy: the limits.
        observer: told of batches.
        prepare: called by the thread of each instance, in order, before it runs a batch.
        latency: what is known of the device, from warming it up.
        pad_to: rows of a batch to the rows it runs with.
        batched: whether inputs and outputs have rows; without, requests run one at a time.
        seats: the instances' places before the device; None where they share it with nobody.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        instances: Sequence[Run],
        policy: BatchingPolicy,
        *,
        observer: BatchObserver,
        prepare: Sequence[Callable[[], None]] = (),
        latency: LatencyModel | None = None,
        pad_to: PadTo = exact,
        batched: bool = True,
        seats: Sequence[Seat] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observer = observer
        self._pad_to = pad_to
        self._batched = batched
        self._clock = clock
        self._scheduler = BatchScheduler(
            policy, latency or LatencyModel(policy.max_batch_size), instances=len(instances)
        )
        self._changed = threading.Condition()
        self._closing = False
        self._prepared: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(run, seat, ready), name=f"batcher-{name}-{i}", daemon=True)
            for i, (run, seat, ready) in enumerate(
                zip(
                    instances,
                    seats or [OpenSeat() for _ in instances],
                    prepare or [_nothing] * len(instances),
                    strict=True,
                )
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

    def queued_rows(self, lane: Lane) -> int:
        """Rows waiting in a lane, not counting the batches that run."""
        with self._changed:
            return self._scheduler.lane_rows(lane)

    def oldest_age_s(self, lane: Lane) -> float:
        """How long the request has waited that waits longest in a lane; 0 if none does."""
        with self._changed:
            return self._scheduler.oldest_age_s(lane, self._clock())

    def submit(self, request: InferenceRequest) -> None:
        """Queue a request; its reply comes later, on a batcher's thread.

        Raises:
            DeadlineExceededError: even an idle server could not answer in time.
            OverloadedError: what is queued before it would make it late.
            QueueFullError: no room.
            ShuttingDownError: `close` was called.
        """
        with self._changed:
            if self._closing:
                raise ShuttingDownError
            self._scheduler.admit(request, self._clock())
            if request.trace is not None:
                request.trace.queued_at = request.enqueued_at
            self._changed.notify()

    def cancel(self, request: InferenceRequest) -> bool:
        """Forget a request: what of it still waits will not be computed, and no reply will be made.

        Returns:
            False where it was answered already.
        """
        with self._changed:
            return self._scheduler.settle(request)

    def close(self, timeout_s: float) -> bool:
        """Refuse new requests and finish the queued ones; what is left after the timeout is told so.

        Returns:
            Whether everything was computed in time.
        """
        ends = self._clock() + timeout_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, ends - self._clock()))
        with self._changed:
            left = self._scheduler.settle_all()
        for request in left:
            self._refuse(request, ShuttingDownError())
        return not left and not any(thread.is_alive() for thread in self._threads)

    def _serve(self, run: Run, seat: Seat, prepare: Callable[[], None]) -> None:
        try:
            prepare()
        except Exception as error:  # noqa: BLE001 - who starts the batcher is told
            self._prepared.put(error)
            return
        self._prepared.put(None)
        try:
            while self._run_batch(run, seat):
                pass
        except Exception:  # nothing should come here; if it does, nobody may wait for ever
            logger.critical("a batcher has stopped; its model answers no more", exc_info=True)
            self.close(0)
        finally:
            seat.leave()

    def _run_batch(self, run: Run, seat: Seat) -> bool:
        """Serve the next batch; False once closed and empty. An idle thread keeps nothing of the last one."""
        taken = self._next_batch(seat)
        if taken is None:
            return False
        for request, error in taken.refused:
            self._refuse(request, error)
        if taken.slices:
            self._compute(run, seat, taken)
        return True

    def _next_batch(self, seat: Seat) -> TakenBatch | None:
        """Wait until a batch is due and has its turn, and take it; None once closed and empty.

        It is taken last, so that what arrives while it waits for its turn still joins it.
        """
        waited_s = 0.0
        while self._wait_until_due(seat):
            waited_s += seat.acquire()
            with self._changed:
                now = self._clock()
                if self._is_due(now):  # else cancelled meanwhile, or taken by another instance
                    return self._scheduler.take_batch(now, waited_s=waited_s)
        return None

    def _wait_until_due(self, seat: Seat) -> bool:
        """Wait for something to compute; False once closed and empty."""
        with self._changed:
            while not self._is_due(now := self._clock()):
                if self._closing:  # whatever waits would be due
                    return False
                seat.leave()
                self._changed.wait(self._scheduler.wait_s(now))
            return True

    def _is_due(self, now: float) -> bool:
        wait_s = self._scheduler.wait_s(now)
        return wait_s is not None and (wait_s == 0 or self._closing)

    def _compute(self, run: Run, seat: Seat, batch: TakenBatch) -> None:
        began = self._clock()
        try:
            done = self._run(run, batch.slices)
        except Exception as error:  # noqa: BLE001 - whatever the model raises must not end this thread
            self._release(seat, held_s=self._clock() - began)
            self._finished(batch.rows, None)
            self._trace_failure(batch.slices, began, error)
            self._fail(run, seat, batch.slices, error)
            return
        self._release(seat, held_s=done.assembly_s + done.compute_s)
        for part, outputs in scatter_outputs(batch.slices, done.outputs, batched=self._batched):
            self._deliver(part, outputs, done)
        # With the replies: a caller waits for them too, and so does the next batch of this instance.
        self._finished(batch.rows, self._clock() - began)
        self._trace(batch.slices, done)

    def _run(self, run: Run, slices: Sequence[BatchSlice]) -> "_Done":
        began = self._clock()
        inputs = assemble(slices, self._pad_to) if self._batched else aligned(slices[0].inputs)
        assembled = self._clock()
        outputs = run(inputs)
        done = _Done(outputs, began, assembled, self._clock())
        rows = sum(part.rows for part in slices)
        if self._batched:
            check_rows(outputs, self._pad_to(rows))
        self._observer.batch_done(rows=rows, assembly_s=done.assembly_s, compute_s=done.compute_s)
        return done

    def _release(self, seat: Seat, *, held_s: float) -> None:
        with self._changed:
            more = self._is_due(self._clock())
        seat.release(held_s, again=more)

    def _finished(self, rows: int, batch_s: float | None) -> None:
        with self._changed:
            self._scheduler.finished(rows, batch_s)

    def _fail(self, run: Run, seat: Seat, slices: Sequence[BatchSlice], error: Exception) -> None:
        """Answer a failed batch; its members run alone, so that only the guilty one fails."""
        if len(slices) > 1:
            logger.warning("a batch of %d requests failed; running them one by one", len(slices))
            for part in slices:
                self._run_alone(run, seat, part)
            return
        if not isinstance(error, InferenceError):
            logger.error("the model failed unexpectedly", exc_info=error)
        if self.cancel(slices[0].request):
            self._reply_error(slices[0].request, error)

    def _run_alone(self, run: Run, seat: Seat, part: BatchSlice) -> None:
        if part.request.settled:  # cancelled meanwhile, or another part of it failed: nobody waits for it
            return
        seat.acquire()
        began = self._clock()
        try:
            done = self._run(run, [part])
        except Exception as error:  # noqa: BLE001 - as above
            self._trace_failure([part], began, error)
            self._fail(run, seat, [part], error)
            return
        finally:
            seat.release(self._clock() - began, again=True)
        ((_, outputs),) = scatter_outputs([part], done.outputs, batched=self._batched)
        self._deliver(part, outputs, done)
        self._trace([part], done)

    def _trace_failure(self, slices: Sequence[BatchSlice], began: float, error: Exception) -> None:
        self._trace(slices, _Done({}, began, began, self._clock()), error)

    def _trace(self, slices: Sequence[BatchSlice], done: "_Done", error: Exception | None = None) -> None:
        """Tell the members that are traced; after they were answered, so that tracing delays nobody."""
        members = [part.request.trace for part in slices if part.request.trace is not None]
        if not members:
            return
        try:
            members[0].trace_batch(
                TracedBatch(
                    members,
                    requests=len(slices),
                    rows=sum(part.rows for part in slices),
                    began=done.began,
                    assembled=done.assembled,
                    ended=done.ended,
                    error=error,
                )
            )
        except Exception:  # what only watches must not end this thread
            logger.exception("a batch could not be traced")

    def _deliver(self, part: BatchSlice, outputs: Arrays, done: "_Done") -> None:
        """Give a request its rows, and its reply if they were the last ones."""
        request = part.request
        try:
            whole = self._collect(part, outputs, done)
        except InferenceError as error:  # its parts do not fit together; the others' do
            if self.cancel(request):
                self._reply_error(request, error)
            return
        if whole is not None:
            self._reply(request, whole)

    def _collect(self, part: BatchSlice, outputs: Arrays, done: "_Done") -> Arrays | None:
        request = part.request
        with self._changed:
            if request.settled:  # cancelled, or another part of it failed
                return None
            whole = request.collect(
                part.start, outputs, part.rows, assembly_s=done.assembly_s, compute_s=done.compute_s
            )
            if whole is not None:
                self._scheduler.settle(request)
            return whole

    def _reply(self, request: InferenceRequest, outputs: Arrays) -> None:
        began = self._clock()
        try:
            send = request.reply.complete(outputs, request.timing)
        except ServingError as refused:  # such as an output that does not fit where it was to go
            self._reply_error(request, refused)
            return
        except Exception:  # one caller's reply must not take the others' away
            logger.exception("a reply could not be made")
            error = InferenceError("the answer could not be encoded; the server's log has the details")
            self._reply_error(request, error)
            return
        now = self._clock()
        self._observer.request_done(
            rows=request.rows, timing=request.timing, output_s=now - began, total_s=now - request.enqueued_at
        )
        send()

    def _refuse(self, request: InferenceRequest, error: ServingError) -> None:
        self._observer.request_refused(error)
        self._reply_error(request, error)

    def _reply_error(self, request: InferenceRequest, error: Exception) -> None:
        self._observer.request_failed(total_s=self._clock() - request.enqueued_at)
        request.reply.fail(error)


def _nothing() -> None:
    """An instance that any thread can use at once."""


@dataclass(frozen=True)
class _Done:
    """A batch that was computed, padding included."""

    outputs: Arrays
    began: float
    assembled: float
    ended: float

    @property
    def assembly_s(self) -> float:
        return self.assembled - self.began

    @property
    def compute_s(self) -> float:
        return self.ended - self.assembled
