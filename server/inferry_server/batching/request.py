"""What waits in the queue: the validated inputs of one request and whom to tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Timing:
    """Where a request's time went, in seconds."""

    queue_s: float
    compute_s: float


class Reply(Protocol):
    """Whom the batcher tells: exactly one of the two is called, once, on the batcher's thread."""

    def complete(self, outputs: Arrays, timing: Timing) -> None:
        """The outputs of this request's rows: views into the batch's, to be read, not kept."""

    def fail(self, error: Exception) -> None:
        """The request was not, or could not be, computed."""


@dataclass(eq=False)
class InferenceRequest:
    """One request in the queue.

    Attributes:
        inputs: by name; all begin with `rows` where the model is batched.
        rows: items, and so the room it takes in a batch; 1 where the model is not batched.
        deadline: on the monotonic clock, in seconds; None for no deadline.
        enqueued_at: set by the queue.
        settled: taken out of the queue, by the batcher or by its caller's cancellation.
    """

    inputs: Arrays
    rows: int
    reply: Reply
    deadline: float | None = None
    enqueued_at: float = field(default=0.0, init=False)
    settled: bool = field(default=False, init=False)

    @property
    def nbytes(self) -> int:
        """Bytes of its inputs."""
        return sum(array.nbytes for array in self.inputs.values())

    @property
    def item_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes without N: only requests that agree in them can share a batch."""
        return tuple(array.shape[1:] for array in self.inputs.values())

    def lateness_s(self, now: float) -> float | None:
        """How long ago its deadline passed, or None if it has not."""
        if self.deadline is None or now < self.deadline:
            return None
        return now - self.deadline
