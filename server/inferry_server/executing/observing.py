"""What metrics and statistics learn of a batch."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from inferry_server.errors import ServingError
from inferry_server.lateness.record import Origin


class Replied(NamedTuple):
    """The requests that get their replies with a batch, for they have their last rows. Seconds of all of them together.

    Attributes:
        rows: of all of them.
        queue_s: of each, from its admission to the start of its first batch.
        total_s: of each, from its arrival to its reply.
        read_s: from arrival to admission.
        assembly_s: putting their batches together.
        compute_s: in the model, of all their batches.
        output_s: making the replies.
        reply_s: of each from the end of the run to its reply, those of others before it included.
        input_bytes: of their tensors.
        traced: of each that is traced, `total_s` and its trace's id.
    """

    rows: int
    queue_s: Sequence[float]
    total_s: Sequence[float]
    read_s: float
    assembly_s: float
    compute_s: float
    output_s: float
    reply_s: float
    input_bytes: int
    traced: Sequence[tuple[float, str]]


class ComputedBatch(NamedTuple):
    """A batch that was computed. A tuple, as one is made for every batch.

    Attributes:
        rows: of the batch.
        alone: whether it is one request that shares no batch, and one run of the model whatever its rows.
        assembly_s: putting its inputs together.
        compute_s: in the model.
        output_bytes: of the batch's outputs, padding included.
        replied: the requests that get their replies with it.
    """

    rows: int
    alone: bool
    assembly_s: float
    compute_s: float
    output_bytes: int
    replied: Replied


class BatchObserver(Protocol):
    """Counts batches, for metrics and statistics. Called on the thread that computes them."""

    def batch_done(self, done: ComputedBatch) -> None:
        """A batch was computed; the replies to its requests are made, and leave now."""

    def request_failed(self, error: Exception, origin: Origin, *, total_s: float) -> None:
        """A request that was admitted got an error: computing it failed."""

    def request_refused(
        self, error: ServingError, origin: Origin | None = None, *, total_s: float | None = None
    ) -> None:
        """A request was not computed at all.

        Args:
            error: what it got.
            origin: the request; None for one that was not read.
            total_s: since its arrival, where it had been admitted.
        """

    def request_cancelled(self) -> None:
        """A request that was admitted was cancelled."""

    def overran(self, seconds: float) -> None:
        """A batch computed for more than five times as long as one may inline: no batch is computed inline any more.

        Called once, under a lock.
        """

    def batching_ended(self, reason: str) -> None:
        """A batch showed that requests cannot share batches: each runs alone from now on. Called once."""
