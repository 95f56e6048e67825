"""The waiting requests of one lane, in the order in which they are due. Pure: time is passed in.

A request is due at its deadline, but no later than `patience_s` after its arrival. So requests with short
deadlines go first, but before no request for longer than that: a later request that is due earlier has a
deadline before then, and is computed or refused by then. After that only earlier arrivals go before it, as
in a queue that serves the first to come first.
"""

import heapq
import itertools
from typing import Any

from inferry_server.batching.latency import ShapeKey
from inferry_server.batching.request import InferenceRequest

# A place in the queue: when it is due, its arrival, and the request, None once that has left. A list: heapq
# compares those in C, and has to compare each request with several others.
_Entry = list[Any]
_DUE, _REQUEST = 0, 2

_SLACK = 16  # entries of requests that are gone, beyond which it pays to drop them


class LaneQueue:
    """A priority queue of requests. A request that leaves it early frees its tensors at once. Not thread-safe.

    Args:
        patience_s: after so long a request is due, whatever its deadline.

    Attributes:
        rows: that wait.
        degraded_rows: those among them that are computed in place of another version.
        nbytes: of the inputs of the requests that wait.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._heap: list[_Entry] = []
        self._entries: dict[InferenceRequest, _Entry] = {}
        self._arrivals = itertools.count()
        self.rows = 0
        self.degraded_rows = 0
        self.nbytes = 0

    def push(self, request: InferenceRequest) -> None:
        """Let a request wait that was enqueued just now."""
        entry: _Entry = [self._due(request), next(self._arrivals), request]  # guard: order-earliest-deadline
        self._entries[request] = entry
        heapq.heappush(self._heap, entry)
        self.rows += request.rows
        if request.degraded_from:
            self.degraded_rows += request.rows
        self.nbytes += request.nbytes

    def first(self) -> InferenceRequest | None:
        """The request whose turn it is."""
        while self._heap:
            request: InferenceRequest | None = self._heap[0][_REQUEST]
            if request is not None:
                return request
            heapq.heappop(self._heap)
        return None

    def in_order(self, count: int) -> list[InferenceRequest]:
        """The requests whose turns come first, so many."""
        waiting = [entry for entry in self._heap if entry[_REQUEST] is not None]
        return [entry[_REQUEST] for entry in heapq.nsmallest(count, waiting)]

    def take(self, request: InferenceRequest, rows: int) -> None:
        """Hand out rows of the first request; with its last rows it leaves."""
        request.waiting_rows -= rows
        self.rows -= rows
        if request.degraded_from:
            self.degraded_rows -= rows
        if request.waiting_rows == 0:
            self._leave(request)

    def forget(self, request: InferenceRequest) -> None:
        """Drop a request that still waits."""
        self.rows -= request.waiting_rows
        if request.degraded_from:
            self.degraded_rows -= request.waiting_rows
        self._leave(request)

    def rows_due_before(self, request: InferenceRequest) -> dict[ShapeKey, int]:
        """Rows whose turn comes before that of a request enqueued now, by shape."""
        due = self._due(request)
        rows: dict[ShapeKey, int] = {}
        for waiting, entry in self._entries.items():
            if entry[_DUE] <= due:  # guard: backlog-due-later
                shape = waiting.shape_key
                rows[shape] = rows.get(shape, 0) + waiting.waiting_rows
        return rows

    def rows_by_shape(self) -> dict[ShapeKey, int]:
        """All rows that wait."""
        rows: dict[ShapeKey, int] = {}
        for waiting in self._entries:
            rows[waiting.shape_key] = rows.get(waiting.shape_key, 0) + waiting.waiting_rows
        return rows

    def first_enqueued_at(self) -> float | None:
        """When the request whose turn it is was enqueued."""
        first = self.first()
        return None if first is None else first.enqueued_at

    def waiting_since(self) -> float | None:
        """When the request that has waited longest was enqueued; entries lie in the order of arrival."""
        longest = next(iter(self._entries), None)
        return None if longest is None else longest.enqueued_at

    def _leave(self, request: InferenceRequest) -> None:
        self.nbytes -= request.nbytes
        # the heap keeps an empty entry, not the tensors
        self._entries.pop(request)[_REQUEST] = None  # guard: settle-request-left
        if len(self._heap) > 2 * len(self._entries) + _SLACK:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def _due(self, request: InferenceRequest) -> float:
        latest = request.enqueued_at + self._patience_s
        if request.deadline is None:
            return latest  # guard: order-no-deadline
        return min(latest, request.deadline)  # guard: order-long-deadline
