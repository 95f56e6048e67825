"""What is known of one request that was slow or refused. Pure data, no tensor and no name of anybody else's request."""

from dataclasses import dataclass
from typing import Protocol

from inferry_server.batching.coalesced import Member
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import InferenceRequest
from inferry_server.errors import ServingError
from inferry_server.trace import RequestTrace

_LONGEST_ID, _LONGEST_MESSAGE = 128, 512  # characters: both may be as long as a message


class Origin(Protocol):
    """A request from its arrival on, queued or not."""

    @property
    def request_id(self) -> str:
        """The id that the client chose; may be empty."""

    @property
    def arrived_at(self) -> float:
        """The time at which it came, in monotonic seconds."""

    @property
    def trace(self) -> RequestTrace | None:
        """Its trace; None where it is not sampled."""

    @property
    def queued(self) -> InferenceRequest | None:
        """The request in its version's queue; None before it is queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RideInBatch:
    """The batch that computed a request, or the last one of those that it was cut into.

    Attributes:
        rows: of all requests in it.
        padded_rows: with which the model ran.
        requests: in it, this one included.
        expected_s: how long it should have taken, with the replies; 0 where nothing was known.
    """

    rows: int
    padded_rows: int
    requests: int
    expected_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRequest:
    """Where one request's time went; the parts add up to the whole.

    Attributes:
        request_id: as the client chose it, shortened.
        trace_id: 32 hexadecimal digits; empty where it was not sampled.
        ended_at: when its reply was made or it was refused, in monotonic seconds.
        rows: of the request; 0 where it was refused before they were known.
        lane: that it waited in.
        deadline_s: from its arrival to its deadline; None for none.
        read_s: from its arrival until it was queued or refused: until it was read, and decoded.
        queue_s: from then until its batch was computed, with the time between the batches that it was cut into.
        turn_s: how long that batch waited for its turn; a part of `queue_s`.
        compute_s: putting the batch together and running the model.
        reply_s: from then until its reply was made, behind those of others in the batch.
        rows_ahead: rows that waited in its lane when it came.
        batch: None where it was not computed.
        reason: the kind of error; empty where it was answered.
        message: of the error.
        degraded_from: the version that it was sent to, MODEL/VERSION, where this one computed it as its variant.
    """

    request_id: str
    trace_id: str
    ended_at: float
    rows: int
    lane: Lane
    deadline_s: float | None
    read_s: float
    queue_s: float = 0.0
    turn_s: float = 0.0
    compute_s: float = 0.0
    reply_s: float = 0.0
    rows_ahead: int = 0
    batch: RideInBatch | None = None
    reason: str = ""
    message: str = ""
    degraded_from: str = ""

    @property
    def total_s(self) -> float:
        """From its arrival to its end."""
        return self.read_s + self.queue_s + self.compute_s + self.reply_s


def answered(
    request: InferenceRequest,
    member: Member | None = None,
    *,
    now: float,
    computed_at: float,
    turn_s: float,
    batch: RideInBatch,
) -> LateRequest:
    """What is known of a request whose reply was made now, and whose last rows were computed before.

    Args:
        request: all of whose rows were computed.
        member: the one that is meant, where several were queued as this one.
        now: on the monotonic clock.
        computed_at: when the model had run for the last time.
        turn_s: that the last batch waited for its turn.
        batch: the last one.
    """
    timing = request.timing
    request_id, arrived_at, rows, deadline = request.request_id, request.arrived_at, request.rows, request.deadline
    if member is not None:
        request_id, arrived_at, rows, deadline = member.request_id, member.arrived_at, 1, member.deadline
    read_s = request.enqueued_at - arrived_at
    compute_s, reply_s = timing.assembly_s + timing.compute_s, now - computed_at
    queue_s = max(0.0, now - arrived_at - read_s - compute_s - reply_s)
    return LateRequest(
        request_id=request_id[:_LONGEST_ID],
        trace_id=_trace_id(request.trace),
        ended_at=now,
        rows=rows,
        lane=request.lane,
        deadline_s=None if deadline is None else deadline - arrived_at,
        read_s=read_s,
        queue_s=queue_s,
        turn_s=min(turn_s, queue_s),
        compute_s=compute_s,
        reply_s=reply_s,
        rows_ahead=request.rows_ahead,
        batch=batch,
        degraded_from=request.degraded_from,
    )


def refused(origin: Origin, error: Exception, now: float) -> LateRequest:
    """What is known of a request that was not computed, or failed, at this time."""
    request = origin.queued
    queued_at = now if request is None or not request.enqueued_at else request.enqueued_at
    deadline = None if request is None else request.deadline
    return LateRequest(
        request_id=origin.request_id[:_LONGEST_ID],
        trace_id=_trace_id(origin.trace),
        ended_at=now,
        rows=0 if request is None else request.rows,
        lane=Lane.INTERACTIVE if request is None else request.lane,
        deadline_s=None if deadline is None else deadline - origin.arrived_at,
        read_s=max(0.0, queued_at - origin.arrived_at),
        queue_s=max(0.0, now - queued_at),
        rows_ahead=0 if request is None else request.rows_ahead,
        reason=kind_of(error),
        message=str(error)[:_LONGEST_MESSAGE] if isinstance(error, ServingError) else "",
        degraded_from="" if request is None else request.degraded_from,
    )


def kind_of(error: Exception) -> str:
    """The reason that metrics give for an error, in one word."""
    return error.kind if isinstance(error, ServingError) else "unexpected_error"


def _trace_id(trace: RequestTrace | None) -> str:
    return "" if trace is None else trace.trace_id
