"""What a scheduler says of batches: what waits for one, the next one, one that was taken, one that has run."""

from collections.abc import Sequence
from typing import NamedTuple

from inferry_proto.datatypes import Arrays
from inferry_server.batching.request import BatchSlice, InferenceRequest, Timing
from inferry_server.errors import DeadlineExceededError, InferenceError


class NextBatch(NamedTuple):
    """What an idle device would take.

    Attributes:
        wait_s: seconds before it does; 0: the batch is due.
        batch_s: how long it should take, if it takes what waits.
    """

    wait_s: float
    batch_s: float


class Queued(NamedTuple):
    """What waits in a lane at one moment, the batches that run not counted.

    Attributes:
        rows: of the requests.
        nbytes: bytes of their inputs.
        oldest_age_s: how long the one has waited that waits longest; 0 if none does.
    """

    rows: int
    nbytes: int
    oldest_age_s: float


class Collected(NamedTuple):
    """Requests of a batch that has run.

    Attributes:
        whole: those with all their outputs, and where their time went; cancelled ones are left out.
        unfit: those whose parts have outputs of different shapes.
        following: what an idle device would take next.
    """

    whole: Sequence[tuple[InferenceRequest, Arrays, Timing]]
    unfit: Sequence[tuple[InferenceRequest, InferenceError]]
    following: NextBatch | None


class TakenBatch(NamedTuple):
    """What is to be computed together. A tuple, as one is made for every batch.

    Attributes:
        slices: of one shape.
        rows: of all of them.
        refused: requests that were taken out of the queue, for they would be late.
        taken_at: when it was taken.
        waited_s: how long it had waited for its turn at the cores.
        done_at: when it should be done.
        is_probe: whether one of its requests is a probe.
    """

    slices: Sequence[BatchSlice]
    rows: int
    refused: Sequence[tuple[InferenceRequest, DeadlineExceededError]]
    taken_at: float
    waited_s: float
    done_at: float
    is_probe: bool
