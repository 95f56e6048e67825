"""What becomes of a batch that was taken: outputs, replies, and what is left of it when it fails."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from inferry_proto.datatypes import Arrays
from inferry_server.batching.batches import Collected, TakenBatch
from inferry_server.batching.coalesced import CoalescedRequest, requests_in
from inferry_server.batching.request import (
    BatchSlice,
    InferenceRequest,
    PadTo,
    Timing,
    aligned,
    assemble,
    exact,
    scatter_outputs,
)
from inferry_server.errors import InferenceError, RowCountError, ServingError, ShuttingDownError
from inferry_server.executing.core_turns import Seat
from inferry_server.executing.observing import BatchObserver, ComputedBatch, Replied
from inferry_server.executing.request_queue import FailedBatch, Ran, RequestQueue
from inferry_server.lateness.record import RideInBatch, answered
from inferry_server.lateness.ring import LateRequests
from inferry_server.signature import Run, Staging
from inferry_server.trace import TracedBatch

logger = logging.getLogger(__name__)


class UnderWay(NamedTuple):
    """A run of the model. It is known by its identity, which a plain tuple does not keep in compiled code.

    Attributes:
        since: when it began.
        slices: whose rows it computes.
    """

    since: float
    slices: Sequence[BatchSlice]


class _Done(NamedTuple):
    """A batch that was computed. A tuple, as one is made for every batch.

    Attributes:
        outputs: of all rows, padding included.
        parts: of each slice.
        alone: the batch is one request, to which all of the outputs belong.
    """

    rows: int
    outputs: Arrays
    parts: Sequence[Arrays]
    alone: bool
    began: float
    assembled: float
    ended: float

    @property
    def assembly_s(self) -> float:
        return self.assembled - self.began

    @property
    def compute_s(self) -> float:
        return self.ended - self.assembled


class BatchExecution:
    """Computes batches of one model, and replies to their requests. Any thread may use it, one for each instance.

    A batch whose outputs have another number of rows shows that its first axis counts no rows. Its members
    run alone then, as all later requests do: a lone request gets the model's outputs, whatever their shapes.

    Args:
        queue: where its requests were.
        observer: told of batches and requests.
        late: told of requests that took long.
        pad_to: rows of a batch to the rows it runs with.
        batched: whether inputs and outputs have rows; without, requests run one at a time.
        whole: by instance, computes a request that shares no batch: neither cut nor padded.
        staging: by instance, where its batches are put together; for instances that have such memory.
        clock: monotonic seconds.
        cpu_clock: seconds for which the calling thread has had a core.
    """

    def __init__(
        self,
        queue: RequestQueue,
        observer: BatchObserver,
        *,
        late: LateRequests,
        pad_to: PadTo,
        batched: bool,
        whole: Mapping[Seat, Run],
        staging: Mapping[Seat, Staging],
        clock: Callable[[], float],
        cpu_clock: Callable[[], float],
    ) -> None:
        self._whole = whole
        self._staging = staging
        self._queue = queue
        self._observer = observer
        self._late = late
        self._pad_to = pad_to
        self._pads = pad_to is not exact
        self._batched = batched
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._under_way: dict[Seat, UnderWay] = {}

    def under_way(self) -> Sequence[tuple[Seat, UnderWay]]:
        """The runs that the model is computing now, by instance. Any thread may ask."""
        return list(self._under_way.items())

    def is_under_way(self, seat: Seat, run: UnderWay) -> bool:
        """Whether an instance is still at that run."""
        return self._under_way.get(seat) is run

    def execute(self, run: Run, seat: Seat, batch: TakenBatch) -> Ran | None:
        """Compute a batch and reply to its requests; nothing that the model raises comes out.

        Args:
            run: of the instance.
            seat: of the instance, which has its turn.
            batch: taken from the queue.

        Returns:
            How it ended, for the queue; None where all that was taken came too late.
        """
        for request, error in batch.refused:
            self.refuse(request, error)
        return self._compute(run, seat, batch) if batch.slices else None

    def compute_inline(self, run: Run, seat: Seat) -> None:
        """Compute the batch that the calling thread was offered, the one that reads requests; nothing comes out."""
        try:
            taken = self._queue.take_inline(seat.try_acquire, seat.leave)
            if taken is not None:
                self._queue.inline_done(taken, self.execute(run, seat, taken), seat.leave)
        except Exception:  # noqa: BLE001 - nothing should come here; if it does, no caller may wait for ever
            self.give_up()

    def retry(self, run: Run, seat: Seat, failed: FailedBatch | None) -> None:
        """Reply to a failed batch, if there is one; its members run alone, so that only those fail that cause it."""
        if failed is None:
            return
        slices, error = failed
        if isinstance(error, RowCountError):
            self._serve_alone(error)
        requests = _requests_in(slices)
        is_several = len(slices) > 1 or slices[0].request.is_coalesced
        if is_several or isinstance(error, RowCountError):  # guard: alone-members-again
            logger.warning("a batch of %d requests failed; running them one by one", requests)
            for part in slices:
                self._run_alone(run, seat, part)  # guard: failure-members-failed
            return
        if not isinstance(error, InferenceError):
            logger.error("the model failed unexpectedly", exc_info=error)
        if self._queue.settle(slices[0].request):  # guard: failure-request-fails
            self._reply_error(slices[0].request, error)

    def refuse(self, request: InferenceRequest, error: ServingError) -> None:
        """Reply to a request that is not computed."""
        self._observer.request_refused(error, request, total_s=self._clock() - request.arrived_at)
        request.reply.fail(error)

    def give_up(self) -> None:
        """Log the current error, and refuse all requests that wait or come: no batch will be computed any more."""
        logger.critical("a batcher has stopped; its model computes no more", exc_info=True)
        self._queue.close()
        self.refuse_waiting()

    def refuse_waiting(self) -> bool:
        """Refuse every request that waits with ShuttingDownError; returns whether any did."""
        waiting = self._queue.settle_all()
        for request in waiting:
            self.refuse(request, ShuttingDownError())
        return bool(waiting)

    def _compute(self, run: Run, seat: Seat, batch: TakenBatch) -> Ran:
        began, cpu_began = self._clock(), self._cpu_clock()

        try:
            done = self._run(run, seat, batch.slices, began)
        except Exception as error:  # noqa: BLE001 - whatever the model raises must not end this thread
            failed_s = self._clock() - began
            seat.release(failed_s, again=True)
            self._trace_failure(batch.slices, began, error)
            return Ran(failed_s, self._cpu_clock() - cpu_began, (batch.slices, error))
        collected, more_due = self._collect(batch.slices, done)
        seat.release(done.ended - done.began, again=more_due)
        self._deliver(collected, done, batch)
        batch_s = self._clock() - began  # with the replies: callers wait for them too, and so does the next batch
        self._trace(batch.slices, done)
        return Ran(batch_s, self._cpu_clock() - cpu_began, None)

    def _run(self, run: Run, seat: Seat, slices: Sequence[BatchSlice], began: float) -> _Done:
        rows = sum([part.rows for part in slices])
        alone = not self._batched or self._queue.serves_alone
        if alone and self._batched:
            _require_whole(slices)
            run = self._whole.get(seat, run)
        padded = self._pad_to(rows) if self._pads and not alone else rows
        if alone:
            inputs = aligned(slices[0].inputs)
        else:
            inputs = assemble(slices, rows=rows, padded=padded, staging=self._staging.get(seat))
        assembled = self._clock()
        self._under_way[seat] = UnderWay(assembled, slices)
        try:
            outputs = run(inputs)
        finally:
            del self._under_way[seat]
        ended = self._clock()
        parts = [outputs] if alone else scatter_outputs(slices, outputs, padded)
        if not alone and self._queue.serves_alone:  # guard: alone-batch-under-way
            _require_whole(slices)
        return _Done(rows, outputs, parts, alone, began, assembled, ended)

    def _serve_alone(self, error: RowCountError) -> None:
        if self._queue.serve_alone():
            self._observer.batching_ended(str(error))

    def _run_alone(self, run: Run, seat: Seat, part: BatchSlice) -> None:
        if isinstance(part.request, CoalescedRequest):  # guard: coalesced-failed-each
            for single in self._queue.take_apart(part.request):
                self._run_alone(run, seat, BatchSlice(single, 0, single.rows))
            return
        if self._queue.serves_alone:
            part = BatchSlice(part.request, 0, part.request.rows)
        # cancelled meanwhile, or another part of it failed: nobody waits for it
        if part.request.settled:  # guard: failure-was-cancelled
            return
        seat.acquire()
        began = self._clock()
        try:
            done = self._run(run, seat, [part], began)
        except Exception as error:  # noqa: BLE001 - whatever the model raises must not end this thread
            self._trace_failure([part], began, error)
            self.retry(run, seat, ([part], error))
            return
        finally:
            seat.release(self._clock() - began, again=True)
        collected, _ = self._collect([part], done)
        self._deliver(collected, done, None)
        self._trace([part], done)

    def _collect(self, slices: Sequence[BatchSlice], done: _Done) -> tuple[Collected, bool]:
        return self._queue.collect(slices, done.parts, assembly_s=done.assembly_s, compute_s=done.compute_s)

    def _deliver(self, collected: Collected, done: _Done, taken: TakenBatch | None) -> None:
        """Reply to the requests whose last rows were computed."""
        for request, error in collected.unfit:
            self._reply_error(request, error)
        slow = self._reply(collected.whole, done)
        if slow:
            self._keep(slow, done, taken)

    def _reply(self, whole: Sequence[tuple[InferenceRequest, Arrays, Timing]], done: _Done) -> Sequence["_Made"]:
        """Make the replies, count the batch, and send them: a caller who has a reply finds it in the statistics.

        Returns:
            The requests among them that are slow.
        """
        clock, slow_s = self._clock, self._late.threshold_s
        began = clock()
        made: list[_Made] = []
        slow: list[_Made] = []
        todo = list(whole)
        for request, outputs, timing in todo:
            try:
                send = request.reply.complete(outputs, timing)
            # one caller's reply must not take the others' away
            except Exception as error:  # noqa: BLE001 - it is logged there  # guard: failure-reply-cannot
                if isinstance(request, CoalescedRequest):  # guard: coalesced-replies-each
                    todo += self._apart(request, outputs, timing)
                    continue
                self._reply_error(request, _told(error))
                continue
            now = clock()
            one = (request, timing, began, now, send)
            made.append(one)
            if now - request.arrived_at > slow_s:
                slow.append(one)
            began = now
        self._observer.batch_done(_computed(made, done))  # guard: statistics-counted-before
        for _, _, _, _, send in made:
            send()
        return slow

    def _apart(
        self, request: CoalescedRequest, outputs: Arrays, timing: Timing
    ) -> list[tuple[InferenceRequest, Arrays, Timing]]:
        """The requests that were queued as one, each with its outputs."""
        singles = self._queue.take_apart_settled(request)
        rows = [member.row for member in request.members.left]
        return [
            (single, {name: array[row : row + 1] for name, array in outputs.items()}, timing)
            for single, row in zip(singles, rows, strict=True)
        ]

    def _keep(self, slow: Sequence["_Made"], done: _Done, taken: TakenBatch | None) -> None:
        """Keep slow requests to be explained; after their replies were sent, so that no caller waits for it."""
        try:
            self._keep_each(slow, done, taken)
        except Exception:  # guard: late-harmless
            logger.exception("slow requests could not be kept")

    def _keep_each(self, slow: Sequence["_Made"], done: _Done, taken: TakenBatch | None) -> None:
        batch = RideInBatch(
            rows=done.rows,
            padded_rows=done.rows if done.alone else self._pad_to(done.rows),
            requests=1 if taken is None else _requests_in(taken.slices),
            expected_s=0.0 if taken is None else taken.done_at - taken.taken_at,
        )
        turn_s = 0.0 if taken is None else taken.waited_s
        for request, _, _, made_at, _ in slow:
            members = request.members.left if isinstance(request, CoalescedRequest) else (None,)
            for member in members:
                if member is not None and made_at - member.arrived_at <= self._late.threshold_s:
                    continue
                self._late.keep_slow(
                    answered(request, member, now=made_at, computed_at=done.ended, turn_s=turn_s, batch=batch)
                )

    def _reply_error(self, request: InferenceRequest, error: Exception) -> None:
        self._observer.request_failed(error, request, total_s=self._clock() - request.arrived_at)
        request.reply.fail(error)

    def _trace_failure(self, slices: Sequence[BatchSlice], began: float, error: Exception) -> None:
        rows = sum([part.rows for part in slices])
        self._trace(slices, _Done(rows, {}, (), False, began, began, self._clock()), error)

    def _trace(self, slices: Sequence[BatchSlice], done: _Done, error: Exception | None = None) -> None:
        """Note the batch in the traces of its members; after their replies were sent, so that tracing delays none."""
        members = [part.request.trace for part in slices if part.request.trace is not None]
        if not members:
            return
        try:
            members[0].trace_batch(
                TracedBatch(
                    members,
                    requests=_requests_in(slices),
                    rows=done.rows,
                    began=done.began,
                    assembled=done.assembled,
                    ended=done.ended,
                    error=error,
                )
            )
        except Exception:  # what only watches must not end this thread
            logger.exception("a batch could not be traced")


def _require_whole(slices: Sequence[BatchSlice]) -> None:
    """Refuse a batch that was put together before it was known that requests cannot share one.

    Raises:
        RowCountError: it has more than one request, or a part of one.
    """
    if len(slices) > 1 or not slices[0].is_whole or slices[0].request.is_coalesced:
        raise RowCountError("requests to this model share no batches any more")


def _told(error: Exception) -> Exception:
    """What is told of an error of making a reply: a refusal, such as of an output that does not fit where it was to go.

    Any other is in the log.
    """
    if isinstance(error, ServingError):
        return error
    logger.error("a reply could not be made", exc_info=error)
    return InferenceError("the reply could not be encoded; the server's log has the details")


def _requests_in(slices: Sequence[BatchSlice]) -> int:
    return sum([requests_in(part.request) for part in slices])


_Made = tuple[InferenceRequest, Timing, float, float, Callable[[], object]]
"""A request whose reply was made: its timing, when that began and ended, and what sends it."""


def _computed(made: Sequence[_Made], done: _Done) -> ComputedBatch:
    output_bytes = sum([array.nbytes for array in done.outputs.values()])
    replied = _replied(made, done.ended)
    return ComputedBatch(done.rows, done.alone, done.assembly_s, done.compute_s, output_bytes, replied)


def _replied(made: Sequence[_Made], computed_at: float) -> Replied:
    """What is counted of the requests, in one pass: several passes would take longer than the rest of a small batch."""
    rows = input_bytes = 0
    read_s = assembly_s = compute_s = output_s = reply_s = 0.0
    waits: list[float] = []
    totals: list[float] = []
    traced: list[tuple[float, str]] = []
    for request, timing, began, ended, _ in made:
        if isinstance(request, CoalescedRequest):
            members = request.members.left
            count = len(members)
            rows += count
            input_bytes += request.nbytes * count // request.rows  # guard: coalesced-left-counted
            for member in members:
                read_s += request.enqueued_at - member.arrived_at
                totals.append(ended - member.arrived_at)
            waits += [timing.queue_s] * count
            assembly_s += timing.assembly_s * count
            compute_s += timing.compute_s * count
            output_s += ended - began
            reply_s += (ended - computed_at) * count
            continue
        arrived_at = request.arrived_at
        rows += request.rows
        input_bytes += request.nbytes
        read_s += request.enqueued_at - arrived_at
        assembly_s += timing.assembly_s
        compute_s += timing.compute_s
        output_s += ended - began
        reply_s += ended - computed_at
        waits.append(timing.queue_s)
        totals.append(ended - arrived_at)
        if request.trace is not None:
            traced.append((ended - arrived_at, request.trace.trace_id))
    return Replied(
        rows, waits, totals, read_s, assembly_s, compute_s, output_s, reply_s, input_bytes, traced
    )  # fmt: skip
