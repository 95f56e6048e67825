"""Which requests may wait, and which are computed next. Pure: time is passed in.

Earliest deadline first inside a lane, but nobody is overtaken for longer than the policy's patience;
interactive requests before bulk work, but never past the share of bulk work that waits; nothing is computed that
would come too late.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from inferry_proto.datatypes import Arrays
from inferry_server.batching.batches import Collected, NextBatch, Queued, TakenBatch
from inferry_server.batching.coalesced import CoalescedRequest, Member
from inferry_server.batching.deadlines import DeadlineRules
from inferry_server.batching.lane_queue import LaneQueue
from inferry_server.batching.latency import LatencyModel, ShapeLatencies
from inferry_server.batching.policy import BULK, INTERACTIVE, BatchingPolicy, Lane
from inferry_server.batching.relief import Load
from inferry_server.batching.request import BatchSlice, InferenceRequest, Timing
from inferry_server.batching.shared_room import SharedRoom
from inferry_server.errors import DeadlineExceededError, InferenceError, QueueFullError, SharedRoomFullError


class BatchScheduler:
    """The queues of one model and every decision about them. Not thread-safe: its owner holds a lock.

    Args:
        policy: the limits.
        latency: what is known of the device; kept up to date by `finished`, for each shape by itself.
        instances: batches that can run at the same time.
        room: what may wait for all models together; the lanes join it.

    Attributes:
        is_warmed: whether a batch was measured before any request came.
        serves_alone: whether requests share no batches any more.
        apart_at: when requests that were queued as one were refused as such, or taken apart because they were late.
    """

    def __init__(
        self, policy: BatchingPolicy, latency: LatencyModel, *, instances: int = 1, room: SharedRoom | None = None
    ) -> None:
        self._policy = policy
        self._most_rows = policy.max_batch_size
        self._bulk_rows = policy.bulk_batch_size or policy.max_batch_size
        self._full_rows = min(policy.max_batch_size, policy.max_queue_size)  # guard: batch-lane-full
        self._interactive_at = -math.inf  # when the latest interactive request was admitted
        self.is_warmed = latency.is_measured
        self._warmed = latency.copy()
        self._capacity: float | None = None  # rows a second; None: to be found anew
        self.serves_alone = False
        self.apart_at = -math.inf
        self._latencies = ShapeLatencies(latency, policy.max_batch_size)
        self._instances = instances
        self._interactive, self._bulk = LaneQueue(policy.patience_s), LaneQueue(policy.patience_s)
        self._room = room or SharedRoom()
        self._room.join(self._interactive, self._bulk)
        self._deadlines = DeadlineRules(
            self._latencies, self._interactive, self._bulk, most_rows=self._most_rows, instances=instances
        )
        self._interactive_batches = 0

    @property
    def rows(self) -> int:
        """Rows waiting."""
        return self._interactive.rows + self._bulk.rows

    def is_full(self) -> bool:
        """Whether the interactive requests that wait fill a batch, or all the room there is."""
        return self._interactive.rows >= self._full_rows  # guard: shed-not-for-bulk

    def queued(self, lane: Lane, now: float) -> Queued:
        """What waits in a lane."""
        waiting = self._lane(lane)
        since = waiting.waiting_since()
        return Queued(waiting.rows, waiting.nbytes, 0.0 if since is None else max(0.0, now - since))

    def capacity_rows_per_s(self) -> float:
        """Rows that full batches would compute a second on all instances; 0 where none was measured in warming up.

        How the time depends on the rows is known from warming up, where batches of all sizes ran; how fast the device
        is now, from the batches that ran lately, at the sizes that they had. If the items of a model differ in shape,
        the shape that was seen last for the first time counts. Found once after each batch: while requests are degraded
        each of them asks several times.
        """
        if self._capacity is None:
            self._capacity = self._find_capacity()
        return self._capacity

    def _find_capacity(self) -> float:
        latency, warmed = self._latencies.latest, self._warmed
        if latency is None or not (warmed.is_measured and latency.is_measured):
            return 0.0
        seen = latency.typical_rows
        expected_s, full_s = warmed.seconds_at(seen), warmed.seconds_at(self._most_rows)
        seconds = max(full_s, expected_s) * (latency.seconds_at(seen) / expected_s if expected_s else 1.0)
        return self._instances * self._most_rows / seconds if seconds else 0.0

    def load(self, *, is_refusing: bool) -> Load:
        """What waits in the interactive lane, and what the device can do.

        Args:
            is_refusing: whether within a second a request was refused because of those queued before it.
        """
        lane = self._interactive
        return Load(
            rows=lane.rows,
            degraded_rows=lane.degraded_rows,
            rows_per_s=self.capacity_rows_per_s(),
            batch_rows=self._instances * self._most_rows,
            most_rows=self._policy.max_queue_size,
            is_refusing=is_refusing,
        )

    def serve_alone(self) -> None:
        """From now on hand out one request at a time, and all of it, also where parts of it were handed out before.

        `finished` still learns the right times. The time that several queued requests take is predicted too short, by
        the fixed cost of a batch for each of them.
        """
        self.serves_alone = True
        rows = self._policy.max_request_rows
        self._policy = replace(self._policy, max_batch_size=rows, max_queue_delay_s=0.0, small_batch_size=None)
        self._most_rows = self._bulk_rows = self._deadlines.most_rows = rows
        self._capacity = None
        self._full_rows = 1

    def admit(self, request: InferenceRequest, now: float) -> None:
        """Queue a request, unless it is refused.

        Raises:
            DeadlineExceededError: its deadline has passed, or even an idle server could not meet it.
            QueueFullError: its lane has no room, or all lanes of all models together have none.
            OverloadedError: what is queued before it would make it late.
        """
        request.enqueued_at = now
        request.arrived_at = request.arrived_at or now
        lane = self._bulk if request.lane is BULK else self._interactive
        request.rows_ahead = lane.rows
        if request.deadline is not None:
            self._deadlines.check_chance(request, request.deadline, now)
        self._check_room(lane, request, now)
        if request.deadline is not None and not request.is_probe:
            self._deadlines.check_backlog(lane, request, now)  # guard: backlog-makes-late
        lane.push(request)
        if request.lane is INTERACTIVE:
            self._interactive_at = now

    def next_batch(self, now: float) -> NextBatch | None:
        """What would be taken next; None if nothing waits."""
        rows = self._interactive.rows + self._bulk.rows
        if not rows:
            return None
        first = self._interactive.first() or self._bulk.first()
        assert first is not None  # noqa: S101 - rows are those of requests
        most = self._most_rows if self._interactive.rows else self._bulk_rows  # guard: bulk-batch-expected
        batch_s = self._latencies[first.shape_key].batch_s(min(rows, most))
        return NextBatch(self._wait_s(rows, now) if self._policy.max_queue_delay_s else 0.0, batch_s)

    def take_batch(self, now: float, *, waited_s: float = 0.0) -> TakenBatch:
        """The rows to compute now; none if every request that waited would be late.

        Args:
            now: on the monotonic clock.
            waited_s: how long the batch has waited for its turn at the cores.
        """
        self._deadlines.turn.observe(waited_s, now)
        slices: list[BatchSlice] = []
        refused: list[tuple[InferenceRequest, DeadlineExceededError]] = []
        lane = self._next_lane()
        largest = self._largest(lane, now)
        rows, ends_by, is_probe = 0, math.inf, False  # `ends_by` is the earliest deadline in the batch
        while lane.rows and (request := lane.first()) is not None:
            deadline = request.deadline
            if deadline is not None:
                error = self._deadlines.too_late(lane, request, now, rows=rows, tightest=deadline < ends_by)
                if error is not None:
                    if isinstance(request, CoalescedRequest):  # guard: coalesced-own-deadline
                        self._take_apart(lane, request)
                        self.apart_at = now
                        continue
                    self.settle(request)
                    refused.append((request, error))
                    continue
            if slices and self.serves_alone:  # guard: alone-one-request
                break
            if self.serves_alone and isinstance(request, CoalescedRequest):
                self._take_apart(lane, request)
                continue
            wanted = min(request.waiting_rows, largest)  # guard: batch-large-request
            if slices:
                wanted = self._rows_that_fit(slices, request, rows, now, largest=largest, ends_by=ends_by)
                if wanted == 0:
                    break
            if deadline is not None and deadline < ends_by and not request.is_probe:  # guard: deadline-any-member
                ends_by = deadline
            handed_out = request.rows - request.waiting_rows
            lane.take(request, wanted)
            if self.serves_alone:  # guard: alone-whole-request
                handed_out, wanted = 0, request.rows
            slices.append(BatchSlice(request, handed_out, wanted))
            request.started(now)
            rows += wanted
            is_probe = is_probe or request.is_probe
        done_at = now
        if slices:
            done_at += self._latencies[slices[0].request.shape_key].batch_s(rows)
            self._deadlines.busy_until.append(done_at)
        return TakenBatch(slices, rows, refused, now, waited_s, done_at, is_probe)

    def finished(self, batch: TakenBatch, batch_s: float | None) -> None:
        """A batch has ended.

        Args:
            batch: from `take_batch`.
            batch_s: from when it was taken until its last reply; None: it failed, and its time says nothing.
        """
        self._deadlines.busy_until.remove(batch.done_at)
        if batch_s is None:  # guard: latency-time-failed
            return
        shape, now = batch.slices[0].request.shape_key, batch.taken_at + batch_s
        if batch.is_probe:
            self._deadlines.turn.at_most(batch.waited_s)  # guard: doubt-turns-believed
        self._latencies.learn(shape, batch.rows, batch_s, now, is_probe=batch.is_probe)
        self._capacity = None  # guard: capacity-follows

    def collect(
        self,
        slices: Sequence[BatchSlice],
        outputs: Sequence[Arrays],
        now: float,
        *,
        assembly_s: float,
        compute_s: float,
    ) -> Collected:
        """Give the requests of a batch the outputs of their rows; with the last of them a request is settled."""
        whole: list[tuple[InferenceRequest, Arrays, Timing]] = []
        unfit: list[tuple[InferenceRequest, InferenceError]] = []
        for part, rows in zip(slices, outputs, strict=True):
            request = part.request
            # cancelled, or another part of it failed
            if request.settled:  # guard: replies-none-after
                continue
            try:
                joined = request.collect(part.start, rows, part.rows, assembly_s=assembly_s, compute_s=compute_s)
            except InferenceError as error:
                self.settle(request)
                unfit.append((request, error))
                continue
            if joined is not None:
                self.settle(request)
                whole.append((request, *joined))
        return Collected(whole, unfit, self.next_batch(now))

    def settle(self, request: InferenceRequest) -> bool:
        """End a request: its rows that wait are not computed, and it gets no reply from now on.

        Returns:
            False where it was settled before.
        """
        if request.settled:  # guard: settle-once
            return False
        request.settled = True
        if request.waiting_rows:  # guard: settle-cancelled-request
            self._lane(request.lane).forget(request)
        return True

    def settle_member(self, request: CoalescedRequest, member: Member) -> bool:
        """As `settle`, one of the requests that were queued as one; the others are not concerned."""
        if member.single is None and request.waiting_rows and not request.settled:
            self._take_apart(self._lane(request.lane), request)  # guard: coalesced-cancelled-room
        if member.single is not None:
            return self.settle(member.single)
        if request.settled or member not in request.members.left:
            return False
        request.members.without(member)
        request.settled = not request.members.left
        return True

    def settle_all(self) -> tuple[InferenceRequest, ...]:
        """Settle everything that waits, and return it."""
        waiting = []
        for lane in (self._interactive, self._bulk):
            while (request := lane.first()) is not None:
                if isinstance(request, CoalescedRequest):  # guard: coalesced-closing
                    self._take_apart(lane, request)
                    continue
                self.settle(request)
                waiting.append(request)
        return tuple(waiting)

    def leave_room(self) -> None:
        """No request will wait here any more: its share is for the others."""
        self._room.leave(self._interactive, self._bulk)

    def _take_apart(self, lane: LaneQueue, request: CoalescedRequest) -> None:
        """Let each of the requests that were queued as one wait by itself."""
        lane.forget(request)
        for single in request.apart():
            lane.push(single)

    def _wait_s(self, rows: int, now: float) -> float:
        first = [at for lane in (self._interactive, self._bulk) if (at := lane.first_enqueued_at()) is not None]
        return self._policy.wait_s(queued_rows=rows, oldest_age_s=now - min(first))

    def _lane(self, lane: Lane) -> LaneQueue:
        return self._bulk if lane is BULK else self._interactive

    def _largest(self, lane: LaneQueue, now: float) -> int:
        """Rows to take together.

        A batch that has begun is computed to its end. A large one computes more rows a second, and an interactive
        request that comes meanwhile waits for all of it: while such requests come, bulk work has small batches.
        """
        if lane is not self._bulk or self.serves_alone:  # guard: bulk-batch-bulk-alone
            return self._most_rows
        is_expected = now - self._interactive_at < _EXPECTED_S
        if is_expected and (first := lane.first()) is not None:  # guard: small-batch-bulk
            small = self._policy.small_batch_size or self._most_rows
            return self._latencies[first.shape_key].rows_for_share(_BULK_SHARE, of=small)  # guard: small-batch-brief
        return self._bulk_rows

    def _next_lane(self) -> LaneQueue:
        """The lane whose turn it is; counts the turn."""
        interactive, bulk = self._interactive.rows, self._bulk.rows
        if bulk and (
            not interactive or self._interactive_batches >= self._policy.interactive_batches_per_bulk
        ):  # guard: lanes-bulk-share, lanes-interactive-first
            self._interactive_batches = 0  # guard: lanes-bulk-turn
            return self._bulk
        self._interactive_batches = self._interactive_batches + 1 if bulk else 0
        return self._interactive

    def _rows_that_fit(
        self,
        slices: list[BatchSlice],
        request: InferenceRequest,
        rows: int,
        now: float,
        *,
        largest: int,
        ends_by: float,
    ) -> int:
        """How many rows of the next request may join a batch; 0 for none.

        Only requests larger than a batch are cut: the others join whole. A batch does not grow past what the
        deadlines of its requests allow, that of the request which would join included.
        """
        room = largest - rows  # guard: batch-rows-bounded
        wanted = request.waiting_rows
        if wanted > room:
            wanted = room if request.rows > largest else 0  # guard: batch-requests-fit
        if wanted == 0 or slices[0].request.item_shapes != request.item_shapes:  # guard: batch-item-shapes
            return 0
        deadline = request.deadline
        if deadline is not None and not request.is_probe and deadline < ends_by and wanted == request.waiting_rows:
            ends_by = deadline
        if ends_by == math.inf:
            return wanted
        fits = now + self._latencies[request.shape_key].batch_s(rows + wanted) <= ends_by
        return wanted if fits else 0  # guard: deadline-batch-does

    def _check_room(self, lane: LaneQueue, request: InferenceRequest, now: float) -> None:
        rows, nbytes, policy = lane.rows + request.rows, lane.nbytes + request.nbytes, self._policy
        if (lane.rows or request.is_coalesced) and rows > policy.max_queue_size:  # guard: room-rows-lane
            retry_s = self._deadlines.retry_after_s(request, now)
            raise QueueFullError("rows", limit=policy.max_queue_size, actual=rows, retry_after_s=retry_s)
        if nbytes > policy.max_queue_bytes:  # guard: room-bytes-lane
            retry_s = self._deadlines.retry_after_s(request, now)
            raise QueueFullError("bytes", limit=policy.max_queue_bytes, actual=nbytes, retry_after_s=retry_s)
        share = self._room.share
        if nbytes > share and not self._room.has_room(request.nbytes):  # guard: room-bytes-all, room-bytes-share
            retry_s = self._deadlines.retry_after_s(request, now)
            raise SharedRoomFullError(limit=share, actual=nbytes, retry_after_s=retry_s)


_EXPECTED_S = 1.0  # after an interactive request the next one is expected
_BULK_SHARE = 0.85  # of its rows a second that bulk work keeps in the batches that it then has
