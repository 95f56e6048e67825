"""The thread that turns queued requests into batches and answers into replies."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.queue import RequestQueue, TakenBatch
from inferry_server.batching.request import Arrays, InferenceRequest, Timing
from inferry_server.errors import DeadlineExceededError, InferenceError, ShuttingDownError

logger = logging.getLogger(__name__)

Run = Callable[[Arrays], Arrays]
_DEFAULT_BATCH_S = 0.01  # what a batch is taken to last before the first one was timed


class BatchObserver(Protocol):
    """Who is told about batches, for metrics. Called on the batcher's thread."""

    def batch_done(self, *, rows: int, compute_s: float) -> None:
        """A batch of so many rows was computed."""

    def request_waited(self, queue_s: float) -> None:
        """A request left the queue for the device."""


class DynamicBatcher:
    """Runs one model, a batch at a time, as soon as anything waits.

    Any thread may call `submit`, `cancel` and `close`; none of them blocks on the model. A request
    waits for the batch that is running, then for those queued before it. Every admitted request gets
    exactly one reply, unless it was cancelled: outputs, DeadlineExceededError, InferenceError, or
    ShuttingDownError when `close` runs out of patience. What the queue has no room for is refused by
    `submit`. Replies are made on the batcher's thread, so a reply must be quick.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        policy: BatchingPolicy,
        *,
        observer: BatchObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_model = run
        self._policy = policy
        self._observer = observer
        self._clock = clock
        self._queue = RequestQueue(policy)
        self._changed = threading.Condition()
        self._closing = False
        self._batch_s = _DEFAULT_BATCH_S
        self._thread = threading.Thread(target=self._serve, name=f"batcher-{name}", daemon=True)

    def start(self) -> None:
        """Begin to take requests from the queue."""
        self._thread.start()

    @property
    def queued_rows(self) -> int:
        """Rows waiting, not counting the batch that runs."""
        with self._changed:
            return self._queue.rows

    def submit(self, request: InferenceRequest) -> None:
        """Queue a request; its reply comes later, on the batcher's thread.

        Raises:
            DeadlineExceededError: its deadline has passed already.
            QueueFullError: no room.
            ShuttingDownError: `close` was called.
        """
        with self._changed:
            if self._closing:
                raise ShuttingDownError
            self._queue.push(request, now=self._clock(), retry_after_s=self._drain_s())
            self._changed.notify()

    def cancel(self, request: InferenceRequest) -> bool:
        """Forget a request that still waits: it will neither be computed nor get a reply.

        Returns:
            False where it runs or was answered already.
        """
        with self._changed:
            return self._queue.remove(request)

    def close(self, timeout_s: float) -> bool:
        """Refuse new requests and finish the queued ones; what is left after the timeout is told so.

        Returns:
            Whether everything was computed in time.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            left = self._queue.take_all()
        for request in left:
            request.reply.fail(ShuttingDownError())
        return not left and not self._thread.is_alive()

    def _serve(self) -> None:
        while (taken := self._next_batch()) is not None:
            for request in taken.expired:
                late_s = request.lateness_s(self._clock()) or 0.0
                request.reply.fail(DeadlineExceededError(late_s=late_s))
            if taken.requests:
                self._compute(taken)

    def _next_batch(self) -> TakenBatch | None:
        """Wait until a batch is due and take it; None once closed and empty."""
        with self._changed:
            while True:
                if self._queue.rows:
                    now = self._clock()
                    wait_s = self._policy.wait_s(
                        queued_rows=self._queue.rows, oldest_age_s=self._queue.oldest_age_s(now)
                    )
                    if wait_s == 0 or self._closing:
                        return self._queue.take_batch(now)
                    self._changed.wait(wait_s)
                elif self._closing:
                    return None
                else:
                    self._changed.wait()

    def _compute(self, batch: TakenBatch) -> None:
        started = self._clock()
        try:
            outputs = self._run_model(concat_inputs(batch.requests))
        except Exception as error:  # noqa: BLE001 - whatever the model raises must not end this thread
            self._fail(batch, error)
            return
        compute_s = self._clock() - started
        self._batch_s += 0.1 * (compute_s - self._batch_s)
        self._observer.batch_done(rows=batch.rows, compute_s=compute_s)
        for request, part in scatter_outputs(batch.requests, outputs):
            queue_s = started - request.enqueued_at
            self._observer.request_waited(queue_s)
            _reply(request, part, Timing(queue_s, compute_s))

    def _fail(self, batch: TakenBatch, error: Exception) -> None:
        """Answer a failed batch; its members are run alone, so that only the guilty one fails."""
        if len(batch.requests) > 1:
            logger.warning("a batch of %d rows failed; running its requests one by one", batch.rows)
            for request in batch.requests:
                self._compute(TakenBatch((request,), ()))
            return
        if not isinstance(error, InferenceError):
            logger.error("the model failed unexpectedly", exc_info=error)
        batch.requests[0].reply.fail(error)

    def _drain_s(self) -> float:
        """How long what is queued will keep the device busy, by the batches seen so far."""
        batches = self._queue.rows / self._policy.max_batch_size
        return self._batch_s * max(1.0, batches)


def concat_inputs(requests: Sequence[InferenceRequest]) -> Arrays:
    """The inputs of a batch, by name; a lone request's own arrays, uncopied."""
    if len(requests) == 1:
        return requests[0].inputs
    return {name: np.concatenate([request.inputs[name] for request in requests]) for name in requests[0].inputs}


def scatter_outputs(requests: Sequence[InferenceRequest], outputs: Arrays) -> Iterator[tuple[InferenceRequest, Arrays]]:
    """Each request with its rows of every output, as views."""
    if len(requests) == 1:  # also the models without a batch dimension, whose outputs have no rows
        yield requests[0], outputs
        return
    start = 0
    for request in requests:
        stop = start + request.rows
        yield request, {name: _rows(array, start, stop) for name, array in outputs.items()}
        start = stop


def _rows(array: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    return array[start:stop]


def _reply(request: InferenceRequest, outputs: Arrays, timing: Timing) -> None:
    try:
        request.reply.complete(outputs, timing)
    except Exception:  # one caller's reply must not take the others' away
        logger.exception("a reply could not be made")
        request.reply.fail(InferenceError("the answer could not be encoded; the server's log has the details"))
