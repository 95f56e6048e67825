"""Late requests in the log: one line, with the parts of its time and the main cause."""

import logging

from inferry_server.lateness.cause import main_cause
from inferry_server.lateness.record import LateRequest

logger = logging.getLogger(__name__)


def log_late(model: str, version: str, request: LateRequest | None) -> None:
    """Log a request that was beyond the objective, if there is one."""
    if request is None:
        return
    extra: dict[str, object] = {"model": f"{model}/{version}", "request_id": _on_one_line(request.request_id)}
    extra |= {"trace_id": request.trace_id} if request.trace_id else {}
    extra |= {name: f"{seconds * 1e3:.1f}" for name, seconds in _parts_ms(request)}
    what = f"refused ({request.reason})" if request.reason else f"late: {request.total_s * 1e3:.1f} ms"
    logger.warning("a request was %s: %s", what, main_cause(request), extra=extra)


def _on_one_line(text: str) -> str:
    """A caller's text with its control characters escaped: it must not look like lines of the log."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )  # guard: late-one-line


def _parts_ms(request: LateRequest) -> tuple[tuple[str, float], ...]:
    return (
        ("read_ms", request.read_s),
        ("queue_ms", request.queue_s),
        ("compute_ms", request.compute_s),
        ("reply_ms", request.reply_s),
    )
