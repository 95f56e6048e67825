"""The main cause why a request was late or refused, as one sentence. Pure.

Of a request that was answered, the part that took longest is the cause: reading, waiting, computing, or replying. Of
the waiting, the turn is named where it is at least half of it. Of the computing, a time far above what was expected is
named before the size of the batch: that was foreseen.
"""

from collections.abc import Callable

from inferry_server.lateness.record import LateRequest, RideInBatch

_UNEXPECTED = 2.0  # times what was expected: batches of one size differ by less on a quiet machine


def main_cause(request: LateRequest) -> str:
    """Why it took so long, or was not computed; without a full stop."""
    return _why(request) + (f"; {request.degraded_from} had no room for it" if request.degraded_from else "")


def _why(request: LateRequest) -> str:
    if request.reason:
        return _why_refused(request)
    parts = ((request.queue_s, _waiting), (request.compute_s, _computing), (request.read_s, _reading))
    seconds, tell = max(parts, key=lambda part: part[0])
    return tell(request) if seconds >= request.reply_s else _replying(request)


def _of(seconds: float, request: LateRequest) -> str:
    return f"{seconds * 1e3:.1f} of {request.total_s * 1e3:.1f} ms"


def _reading(request: LateRequest) -> str:
    return (
        f"it took {_of(request.read_s, request)} until it was read and decoded: it or its pictures were large, or more "
        "calls came than could be read"
    )


def _waiting(request: LateRequest) -> str:
    batch, waited = request.batch, _of(request.queue_s, request)
    if request.turn_s >= request.queue_s / 2:
        return (
            f"its batch waited {_of(request.turn_s, request)} for its turn: other models had the cores, or the thread "
            "that computes was still reading requests"
        )
    if batch is not None and request.rows > batch.rows:
        return f"its {_rows(request.rows)} were computed in several batches, between which it waited {waited}"
    if request.rows_ahead:
        return f"it waited {waited} in lane {request.lane.value}, behind {_rows(request.rows_ahead)}"
    return f"it waited {waited}, behind no other request: for the batch that ran when it came, a fuller one, or a core"


def _computing(request: LateRequest) -> str:
    took, batch = _of(request.compute_s, request), request.batch
    if batch is None:
        return f"the model took {took}"
    if batch.expected_s and request.compute_s > _UNEXPECTED * batch.expected_s and request.rows <= batch.rows:
        return (
            f"the model took {took} for {_rows(batch.rows)}, where {batch.expected_s * 1e3:.1f} ms were expected: "
            "something else used the cores or the device"
        )
    return f"the model took {took} for {_rows(batch.rows)}{_company(request, batch)}"


def _company(request: LateRequest, batch: RideInBatch) -> str:
    others, padding = batch.rows - request.rows, batch.padded_rows - batch.rows
    if others > request.rows:
        return f", {others} of them of {batch.requests - 1} other requests"
    return f" and {padding} of padding" if padding > batch.rows else ""


def _replying(request: LateRequest) -> str:
    others = 0 if request.batch is None else request.batch.requests - 1
    behind = f", among those of {others} other requests of its batch" if others else ""
    return f"making its reply took {_of(request.reply_s, request)}{behind}"


def _why_refused(request: LateRequest) -> str:
    tell = _REFUSALS.get(request.reason)
    return request.message or f"it ended with {request.reason}" if tell is None else tell(request)


def _overloaded(request: LateRequest) -> str:
    return f"{_rows(request.rows_ahead)} waited in lane {request.lane.value} when it came, too many for its deadline"


def _full(request: LateRequest) -> str:
    return f"lane {request.lane.value} had no room for its {_rows(request.rows)}: {_rows(request.rows_ahead)} waited"


def _crowded(request: LateRequest) -> str:
    return f"requests for all models together took the room there is when its {_rows(request.rows)} came"


def _hopeless(request: LateRequest) -> str:
    left_s = (request.deadline_s or 0.0) - request.read_s
    if left_s <= 0:
        return f"its deadline had passed by {-left_s * 1e3:.1f} ms when it had been read and decoded"
    return f"it had {left_s * 1e3:.1f} ms left when it came, less than computing it takes"


def _late_in_queue(request: LateRequest) -> str:
    behind = f" behind {_rows(request.rows_ahead)}" if request.rows_ahead else ""
    return (
        f"it waited {request.queue_s * 1e3:.1f} ms in lane {request.lane.value}{behind}, and what was left until its "
        "deadline was less than computing it takes"
    )


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


_REFUSALS: dict[str, Callable[[LateRequest], str]] = {
    "overloaded": _overloaded,
    "queue_full_rows": _full,
    "queue_full_bytes": _full,
    "queue_full_total_bytes": _crowded,
    "deadline_at_admission": _hopeless,
    "deadline_in_queue": _late_in_queue,
}
