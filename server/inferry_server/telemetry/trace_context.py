"""The caller's trace, as W3C Trace Context (https://www.w3.org/TR/trace-context/) puts it into headers."""

import re
from dataclasses import dataclass

from inferry_server.trace import Metadata

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED = 0x01


@dataclass(frozen=True)
class CallerContext:
    """The span that a request was sent from.

    Attributes:
        trace_id: 128 bits, not 0.
        span_id: 64 bits, not 0.
        flags: 8 bits; the lowest says whether the caller records its trace.
        trace_state: what tracing systems pass along, as it came; may be empty.
    """

    trace_id: int
    span_id: int
    flags: int
    trace_state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the caller records its trace, and so wants ours."""
        return bool(self.flags & _SAMPLED)


def caller_context(metadata: Metadata) -> CallerContext | None:
    """The caller's trace; None where it sent none, or one that the specification says to ignore."""
    parents = [value for key, value in metadata if key == "traceparent"]
    if len(parents) != 1 or not isinstance(parents[0], str):
        return None
    match = _TRACEPARENT.fullmatch(parents[0])
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    # Version 00 ends here; later ones may go on, and are read as far as 00 goes. ff is no version.
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = ",".join(value for key, value in metadata if key == "tracestate" and isinstance(value, str))
    return CallerContext(int(trace_id, 16), int(span_id, 16), int(flags, 16), state)
