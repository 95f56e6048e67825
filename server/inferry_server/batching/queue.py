"""The bounded queue of one model: first come, first served. Pure: time is passed in."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import InferenceRequest
from inferry_server.errors import DeadlineExceededError, QueueFullError


@dataclass(frozen=True)
class TakenBatch:
    """What the queue hands out: requests to compute together, and those that came too late."""

    requests: tuple[InferenceRequest, ...]
    expired: tuple[InferenceRequest, ...]

    @property
    def rows(self) -> int:
        """Rows to compute."""
        return sum(request.rows for request in self.requests)


class RequestQueue:
    """Requests waiting for the device. Not thread-safe: its owner holds a lock around every call."""

    def __init__(self, policy: BatchingPolicy) -> None:
        self._policy = policy
        self._waiting: deque[InferenceRequest] = deque()
        self._rows = 0
        self._bytes = 0

    @property
    def rows(self) -> int:
        """Rows waiting."""
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes of inputs waiting."""
        return self._bytes

    def oldest_age_s(self, now: float) -> float:
        """How long the first request has waited; 0 for an empty queue."""
        self._drop_settled()
        return now - self._waiting[0].enqueued_at if self._waiting else 0.0

    def push(self, request: InferenceRequest, *, now: float, retry_after_s: float) -> None:
        """Let a request wait.

        Args:
            request: its rows are within the model's limit.
            now: monotonic seconds.
            retry_after_s: what a refused caller is told to wait.

        Raises:
            DeadlineExceededError: its deadline has passed already.
            QueueFullError: rows or bytes would exceed their limit.
        """
        late_s = request.lateness_s(now)
        if late_s is not None:
            raise DeadlineExceededError(late_s=late_s)
        self._check_room("rows", self._rows + request.rows, self._policy.max_queue_size, retry_after_s)
        self._check_room("bytes", self._bytes + request.nbytes, self._policy.max_queue_bytes, retry_after_s)
        request.enqueued_at = now
        self._waiting.append(request)
        self._rows += request.rows
        self._bytes += request.nbytes

    def take_batch(self, now: float) -> TakenBatch:
        """The requests to compute next: as many from the front as fit together.

        Requests whose deadline has passed are taken out too, and never computed.
        """
        batch: list[InferenceRequest] = []
        expired: list[InferenceRequest] = []
        rows = 0
        for request in self._front():
            if request.lateness_s(now) is not None:
                expired.append(self._take())
                continue
            if batch and (rows + request.rows > self._policy.max_batch_size or _differ(batch[0], request)):
                break
            rows += request.rows
            batch.append(self._take())
        return TakenBatch(tuple(batch), tuple(expired))

    def remove(self, request: InferenceRequest) -> bool:
        """Take a request out that its caller no longer wants.

        Returns:
            False where it is not waiting any more.
        """
        if request.settled:
            return False
        self._settle(request)  # and leave it in the deque: removing from the middle is linear
        return True

    def take_all(self) -> tuple[InferenceRequest, ...]:
        """Every waiting request, so that it can be told that it will not be computed."""
        return tuple(self._take() for _ in self._front())

    def _front(self) -> Iterator[InferenceRequest]:
        """The first waiting request, again and again while the caller takes it."""
        while True:
            self._drop_settled()
            if not self._waiting:
                return
            yield self._waiting[0]

    def _take(self) -> InferenceRequest:
        request = self._waiting.popleft()
        self._settle(request)
        return request

    def _settle(self, request: InferenceRequest) -> None:
        request.settled = True
        self._rows -= request.rows
        self._bytes -= request.nbytes

    def _drop_settled(self) -> None:
        while self._waiting and self._waiting[0].settled:
            self._waiting.popleft()

    def _check_room(self, what: str, actual: int, limit: int, retry_after_s: float) -> None:
        if actual > limit:
            raise QueueFullError(what, limit=limit, actual=actual, retry_after_s=retry_after_s)


def _differ(first: InferenceRequest, other: InferenceRequest) -> bool:
    return first.item_shapes != other.item_shapes
