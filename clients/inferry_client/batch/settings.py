"""What a job is asked to do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor
from pathlib import Path

from inferry_client.batch.shard import Shard

DEFAULT_BATCH_SIZE = 32
"""Pictures that are computed together at least; small ones travel in larger requests."""
_SMALL_REQUEST_BYTES, _MOST_BATCH_SIZE = 256 << 10, 256
_UNDER_WAY_BYTES = 4 << 20
DEFAULT_PART_SIZE = 1024
DEFAULT_MAX_ERRORS = 0.1
"""Of all pictures: above it, the folder, the model or a disk is the wrong one more often than the pictures."""
DEFAULT_MAX_FILE_BYTES = 256 << 20
"""Above any photograph; what has more is no picture, or would fill the memory of a decoding process."""


@dataclass(frozen=True)
class BatchSettings:
    """What a job is asked to do.

    Attributes:
        out: of plan, parts, receipts and errors: a folder, or an address like `s3://bucket/results`.
        model: None for the one of the job in `out`, else the only one that is ready.
        version: empty for the one of the job in `out`, else the newest.
        batch_size: pictures a request; None for 32, more where they are small, or the model's limit if lower.
        part_size: pictures a part; None for the one of the job in `out`, else 1024.
        workers: chunks that are sent, or wait for it, at a time.
        output: the format of part files: parquet, csv or jsonl.
        top_k: labels a picture.
        all_probabilities: whether to keep every class's probability.
        overwrite: whether to begin anew where `out` holds a job.
        incremental: whether to classify what is new since the job in `out`, instead of refusing it.
        max_errors: a job ends once more pictures than this have none: a number, or a share below 1 of all.
        max_file_bytes: a picture with more is an error.
        shard: which parts of the job are done here; its results go to a folder of their own in `out`.
        grace_s: how long a job that is told to stop may go on with the part it is at.
    """

    out: Path | str
    model: str | None = None
    version: str = ""
    batch_size: int | None = None
    part_size: int | None = None
    workers: int = 4
    output: str = "parquet"
    top_k: int = 1
    all_probabilities: bool = False
    overwrite: bool = False
    incremental: bool = False
    max_errors: float = DEFAULT_MAX_ERRORS
    max_file_bytes: int = DEFAULT_MAX_FILE_BYTES
    shard: Shard = field(default_factory=Shard)
    grace_s: float = 20.0


def errors_allowed(max_errors: float, pictures: int) -> int:
    """How many pictures of so many may have no answer.

    Args:
        max_errors: a whole number of pictures, or a float from 0 to 1: a share of them.
        pictures: of the whole job.
    """
    return max_errors if isinstance(max_errors, int) else floor(max_errors * pictures)


def default_batch_size(picture_bytes: int, *, most: int) -> int:
    """Pictures a request: 32, or as many small ones as spread a request's own costs over enough of them.

    Args:
        picture_bytes: of the pixels of one.
        most: that the model takes in a request.
    """
    return min(most, max(DEFAULT_BATCH_SIZE, min(_MOST_BATCH_SIZE, _SMALL_REQUEST_BYTES // picture_bytes)))


def chunks_under_way(workers: int, chunk_bytes: int) -> int:
    """Chunks that are handed out and not taken back: two a worker, and up to four of small ones.

    Args:
        workers: that send.
        chunk_bytes: of a chunk's pixels.
    """
    return max(2 * workers, min(4 * workers, _UNDER_WAY_BYTES // chunk_bytes))


Progress = Callable[[int, int], object]
"""Told how many pictures are done, and how many of them have no answer, since it was told before."""
