"""Which requests are refused because their reply would be late. Pure: time is passed in.

Rules:

- At admission a request is refused whose deadline even an idle server could not meet (`check_chance`), or which the
  rows before it in the queue would make late (`check_backlog`).
- When its turn comes, a request is given up, that is refused and not computed, if it would be late by now, or would
  make a batch so small that the next one is late (`too_late`).
- No request is refused on a prediction that no batch has confirmed lately (`latency.py`): a probe is computed instead.
"""

import math
from collections.abc import Mapping

from inferry_server.batching.lane_queue import LaneQueue
from inferry_server.batching.latency import LatencyModel, ShapeKey, ShapeLatencies, TurnWait
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import InferenceRequest
from inferry_server.errors import DeadlineExceededError, OverloadedError

_LEAST_RETRY_S = 0.001


class DeadlineRules:
    """The rules for the requests of one scheduler, which keeps the attributes up to date. Not thread-safe.

    Args:
        latencies: of the device, by shape.
        interactive: the lane that goes first.
        bulk: the other one.
        most_rows: as the attribute.
        instances: batches that can run at the same time.

    Attributes:
        most_rows: rows of a full batch.
        turn: how long batches wait for their turns at the cores.
        busy_until: when each batch that runs should be done.
    """

    def __init__(
        self, latencies: ShapeLatencies, interactive: LaneQueue, bulk: LaneQueue, *, most_rows: int, instances: int
    ) -> None:
        self.most_rows = most_rows
        self.turn = TurnWait()
        self.busy_until: list[float] = []
        self._latencies, self._doubt = latencies, latencies.doubt
        self._interactive, self._bulk = interactive, bulk
        self._instances = instances

    def check_chance(self, request: InferenceRequest, deadline: float, now: float) -> None:
        """Refuse a request to which even an idle server would reply late; or mark it as the probe that tests this.

        Raises:
            DeadlineExceededError: it is refused.
        """
        latency = self._latencies[request.shape_key]
        alone_s = latency.total_s(request.rows, largest=self.most_rows)
        late_s = request.late_by_s(now + alone_s)
        if late_s is None and deadline != now:  # guard: deadline-passed-refused
            return
        left_s = deadline - now
        if left_s > 0 and not latency.is_measured:  # guard: doubt-guess
            return
        in_doubt = not request.is_coalesced and left_s > 0
        if in_doubt and not self._doubt.allows_refusal(request.shape_key, request.rows, left_s, now):
            request.is_probe = True  # guard: doubt-at-admission
            return
        raise DeadlineExceededError(  # guard: deadline-refused-door
            late_s=late_s or 0.0, needed_s=alone_s, stage="at_admission"
        )

    def check_backlog(self, lane: LaneQueue, request: InferenceRequest, now: float) -> None:
        """Refuse a request that the queue would make late.

        The rows due before it are counted only if all rows that wait would make it late.

        Raises:
            OverloadedError: it is refused.
        """
        wait_s = self._busy_s(now)
        if len(self._latencies) == 1:
            all_s = self._alike_s(self._latencies[request.shape_key], self._rows(), request, self.turn.expected_s(now))
            if request.late_by_s(now + wait_s + all_s) is None:
                return
        ahead = lane.rows_due_before(request)
        if request.lane is Lane.BULK:
            for shape, rows in self._interactive.rows_by_shape().items():  # guard: backlog-bulk-waits
                ahead[shape] = ahead.get(shape, 0) + rows
        late_s = request.late_by_s(now + wait_s + self._backlog_s(ahead, request, now))
        if late_s is None:
            return
        if not self._rows() and not wait_s:
            if not self._latencies[request.shape_key].is_measured:
                return
            if not request.is_coalesced and not self._doubt.allows_refusal(
                request.shape_key, request.rows, math.inf, now
            ):
                request.is_probe = True  # guard: doubt-turns
                return
        raise OverloadedError(late_s=late_s, retry_after_s=late_s)

    def too_late(
        self, lane: LaneQueue, request: InferenceRequest, now: float, *, rows: int, tightest: bool
    ) -> DeadlineExceededError | None:
        """Why a request is refused when its turn has come; None if it is computed.

        Args:
            lane: where it waits, the first.
            request: with a deadline.
            now: on the monotonic clock.
            rows: that were taken before it.
            tightest: whether its deadline is before those of the requests that were taken before it.
        """
        # A request with less time than those before it, and too little to share their batch, waits for that batch.
        before = rows if tightest and self._instances == 1 else 0  # guard: deadline-waits-before
        latency = self._latencies[request.shape_key]
        needed_s = latency.total_s(before + request.waiting_rows, largest=self.most_rows)
        late_s = request.late_by_s(now + needed_s)
        if late_s is not None and self._is_to_be_probed(request, latency, now):  # guard: doubt-in-queue
            return None
        if late_s is None and tightest and not request.is_probe:
            late_s = self._holds_others_up_by_s(lane, request, now, taken=rows)
        if late_s is None and request.deadline != now:  # guard: deadline-not-computed
            return None
        return DeadlineExceededError(late_s=late_s or 0.0, needed_s=needed_s, stage="in_queue")

    def retry_after_s(self, request: InferenceRequest, now: float) -> float:
        """Seconds until the queue has about one more batch of room."""
        batch_s = self._latencies[request.shape_key].batch_s(self.most_rows)
        return self._busy_s(now) + max(batch_s, _LEAST_RETRY_S)

    def _is_to_be_probed(self, request: InferenceRequest, latency: LatencyModel, now: float) -> bool:
        """Whether a request that waits is computed though a prediction says that it will be late.

        It need not be while other requests wait: their batches will be measured.
        """
        left_s = math.inf if request.deadline is None else request.deadline - now
        if left_s <= 0:
            return False
        if request.is_probe or not latency.is_measured:
            return True
        if (
            request.is_coalesced
            or self._rows() > request.rows
            or self._doubt.allows_refusal(request.shape_key, request.waiting_rows, left_s, now)
        ):
            return False
        request.is_probe = True
        return True

    def _holds_others_up_by_s(
        self, lane: LaneQueue, tight: InferenceRequest, now: float, *, taken: int
    ) -> float | None:
        """How late a fuller batch would be for a request, where one cut for it makes the next one late.

        A batch that is cut for its earliest deadline makes the other requests wait longer. While they have
        the time, it is cut: a short deadline is met among long ones. Under overload all requests are short
        of time, every batch would be cut, and the device would spend its time on the fixed cost of batches.
        Then the request with the earliest deadline is given up, and the others share a batch.

        Args:
            lane: where it waits, the first.
            tight: the request with the earliest deadline.
            now: on the monotonic clock.
            taken: rows of the batch before it, all of them with more time.
        """
        largest, latency = self.most_rows, self._latencies[tight.shape_key]
        rows = min(taken + tight.waiting_rows, largest)
        if tight.late_by_s(now + latency.batch_s(min(taken + lane.rows, largest))) is None:
            return None
        for following in lane.in_order(largest + 1)[1:]:
            fuller = rows + following.waiting_rows
            if fuller > largest or following.item_shapes != tight.item_shapes:
                return None  # it is not the deadline that ends the batch here
            late_s = tight.late_by_s(now + latency.batch_s(fuller))
            if late_s is not None:
                rest_s = latency.batch_s(min(taken + lane.rows - rows, largest))
                is_late = following.late_by_s(now + latency.batch_s(rows) + rest_s) is not None
                return late_s if is_late else None  # guard: overload-given-up, deadlines-short-met
            rows = fuller
        return None

    def _busy_s(self, now: float) -> float:
        """Seconds until an instance is free."""
        if len(self.busy_until) < self._instances:  # guard: backlog-free-instance
            return 0.0
        return max(0.0, min(self.busy_until) - now)  # guard: backlog-batch-runs

    def _backlog_s(self, ahead: Mapping[ShapeKey, int], request: InferenceRequest, now: float) -> float:
        """Seconds until a request and the rows ahead of it are computed, each batch's wait for its turn included.

        Rows beyond one batch count as full batches. If they were counted exactly, the requests admitted last would
        make their batches smaller to be in time, and the device would compute less under load.

        Args:
            ahead: rows by shape.
            request: the one behind them.
            now: on the monotonic clock.
        """
        own, turn_s = request.shape_key, self.turn.expected_s(now)
        if len(ahead) <= (own in ahead):
            return self._alike_s(self._latencies[own], ahead.get(own, 0), request, turn_s)
        all_rows = {**ahead, own: ahead.get(own, 0) + request.rows}
        return sum([self._batches_s(self._latencies[shape], rows, turn_s) for shape, rows in all_rows.items()])

    def _alike_s(self, latency: LatencyModel, ahead: int, request: InferenceRequest, turn_s: float) -> float:
        """As `_backlog_s`, where so many rows of the same shape are ahead and no others."""
        if not ahead:  # alone: the last batch it is cut into need not be full
            return turn_s + latency.total_s(request.rows, largest=self.most_rows)
        return self._batches_s(latency, ahead + request.rows, turn_s)

    def _batches_s(self, latency: LatencyModel, rows: int, turn_s: float) -> float:
        """Seconds until so many rows of one shape are computed."""
        largest = self.most_rows
        if rows <= largest:
            return turn_s + latency.batch_s(rows)
        return -(-rows // largest) * (turn_s + latency.batch_s(largest)) / self._instances

    def _rows(self) -> int:
        """Rows waiting in both lanes."""
        return self._interactive.rows + self._bulk.rows
