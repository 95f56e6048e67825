"""The waiting requests of one lane, earliest deadline first. Pure: time is passed in."""

import heapq
import itertools

from inferry_server.batching.request import InferenceRequest


class LaneQueue:
    """A priority queue of requests that can also be forgotten. Not thread-safe."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._heap: list[tuple[float, int, InferenceRequest]] = []
        self._arrivals = itertools.count()
        self.rows = 0
        self.nbytes = 0

    def push(self, request: InferenceRequest) -> None:
        """Let a request wait that was enqueued just now."""
        heapq.heappush(self._heap, (self._due(request), next(self._arrivals), request))
        self.rows += request.rows
        self.nbytes += request.nbytes

    def first(self) -> InferenceRequest | None:
        """The request whose turn it is."""
        while self._heap and self._heap[0][2].settled:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def take(self, rows: int) -> InferenceRequest:
        """Hand out rows of the first request; with its last rows it leaves."""
        request = self._heap[0][2]
        request.taken_rows += rows
        self.rows -= rows
        if request.waiting_rows == 0:
            heapq.heappop(self._heap)
            self.nbytes -= request.nbytes
        return request

    def forget(self, request: InferenceRequest) -> None:
        """Give back the room of a request that is settled while it still waits."""
        self.rows -= request.waiting_rows
        self.nbytes -= request.nbytes
        if len(self._heap) > 2 * self._live_limit():
            self._heap = [entry for entry in self._heap if not entry[2].settled]
            heapq.heapify(self._heap)

    def rows_due_before(self, request: InferenceRequest) -> int:
        """Rows whose turn comes before that of a request enqueued now."""
        due = self._due(request)
        return sum(waiting.waiting_rows for key, _, waiting in self._heap if key <= due and not waiting.settled)

    def oldest_enqueued_at(self) -> float | None:
        """When the first request was enqueued."""
        first = self.first()
        return None if first is None else first.enqueued_at

    def _due(self, request: InferenceRequest) -> float:
        return request.enqueued_at + self._patience_s if request.deadline is None else request.deadline

    def _live_limit(self) -> int:
        """Every live request has a row waiting at least, so there are no more of them than rows."""
        return max(self.rows, 16)
