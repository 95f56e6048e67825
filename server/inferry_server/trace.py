"""What those who handle a request tell its trace. Here, nobody knows how traces are made or where they go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Metadata = Sequence[tuple[str, str | bytes]]


class RequestTrace(Protocol):
    """The spans of one sampled request; for all others there is None. Times are on the monotonic clock.

    Attributes:
        queued_at: when it was admitted to a queue; None before.
        taken_at: when its first rows left the queue for a batch; None before.
        trace_id: of the trace that it belongs to, in 32 hexadecimal digits.
    """

    queued_at: float | None
    taken_at: float | None
    trace_id: str

    def concerns(self, model: str, version: str) -> None:
        """The version that it is for was found."""

    def trace_batch(self, batch: "TracedBatch") -> None:
        """A batch has run, and this request is the first of its members that are traced."""

    def ended(self, *, code: int, reason: str) -> None:
        """It was answered, refused or given up. The first call counts.

        Args:
            code: gRPC's.
            reason: the kind of error; empty where there was none.
        """


@dataclass(frozen=True)
class TracedBatch:
    """A batch with members that are traced.

    Attributes:
        members: the traced requests.
        requests: all, traced or not.
        began: when its inputs began to be put together.
        assembled: when they were; the model ran from here.
        ended: when the model had run.
        error: why it failed, if it did.
    """

    members: Sequence[RequestTrace]
    requests: int
    rows: int
    began: float
    assembled: float
    ended: float
    error: Exception | None


class Tracer(Protocol):
    """Decides which requests are traced. Thread-safe; `start` and `close` are called once each."""

    def start(self) -> None:
        """Get ready to send spans."""

    def begin(self, method: str, metadata: Metadata) -> RequestTrace | None:
        """A request has arrived: its trace, or None where it is not sampled."""

    def close(self, timeout_s: float) -> None:
        """Send what is left, for no longer than that."""


class NoTracer:
    """Traces nothing."""

    def start(self) -> None:
        """Nothing to get ready."""

    def begin(self, method: str, metadata: Metadata) -> None:
        """No request is sampled."""

    def close(self, timeout_s: float) -> None:
        """Nothing to send."""
