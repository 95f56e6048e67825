"""A job's parts made by Ray Data: one task lists, many decode, actors classify, and the driver commits.

    records (a task beside the driver) -> pieces of parts -> decoding tasks -> actors -> the driver gathers and commits

A piece is some batches of one part. What a node that dies had in hand Ray makes again elsewhere; the driver takes each
piece once, and writes parts as a job without Ray does, so results are the same to the byte.
"""

import logging
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from inferry_client.batch.classifier import TargetSettings
from inferry_client.batch.decode import DecodeSettings, decode_chunk
from inferry_client.batch.errors import JobError
from inferry_client.batch.keeping import Answered, Draining, Keeping
from inferry_client.batch.opening import Job
from inferry_client.batch.plan import Listing, check_part, list_parts
from inferry_client.batch.records import MissingContent, Record
from inferry_proto.extras import how_to_install
from inferry_proto.preprocessing import channel_count

try:
    import ray
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata
except ModuleNotFoundError as missing:
    raise JobError(f"--engine ray needs more: {how_to_install('ray')}") from missing

_PIECE_BYTES = 16 << 20
"""Of pixels in a piece: enough to pay for its way through the cluster, little beside an object store."""
_DECODE_MEMORY_BYTES = 192 << 20
_CPUS = 0.5  # of a task or an actor: on a node with one core both kinds find a place


@dataclass(frozen=True)
class Piece:
    """Some batches of one part.

    Attributes:
        part: its number in the plan.
        index: of the piece in the part.
        count: of pieces in the part.
        batches: records that are classified together.
    """

    part: int
    index: int
    count: int
    batches: list[list[Record]]


class RayEngine:
    """Runs a job on the Ray cluster that `RAY_ADDRESS` names, on the one of this machine, or on one of its own."""

    def __init__(self, settings: TargetSettings, *, actors: int | None) -> None:
        self._settings = settings
        self._actors = actors

    def run(self, job: Job, keeping: Keeping, draining: Draining, batch_size: int) -> None:
        """Every part that is not complete.

        Raises:
            StoppedError: the job was told to stop.
            JobError: Ray could not finish it.
        """
        with _connected():
            try:
                for piece, answers in self._answers(job, batch_size):
                    keeping.add_piece(piece.part, piece.index, piece.count, answers)
                    draining.check()
            except ray.exceptions.RayError as error:
                raise JobError(f"Ray could not go on: {_cause(error)}") from error

    def _answers(self, job: Job, batch_size: int) -> Iterator[tuple[Piece, list[Answered]]]:
        spec = job.target.model.preprocessing
        pixels = max(1, spec.height * spec.width * channel_count(spec) * batch_size)
        wanted = frozenset(number for number in range(len(job.listing.parts)) if job.is_open(number))
        cut = partial(
            cut_pieces,
            listing=job.listing,
            part_size=job.plan.part_size,
            batch_size=batch_size,
            batches=max(1, _PIECE_BYTES // pixels),
            wanted=wanted,
        )
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        listed = ray.data.read_datasource(
            _Pieces(job.records, cut), override_num_blocks=1, num_cpus=0, label_selector=here
        )
        decoded = listed.map_batches(
            partial(_decode, DecodeSettings(spec.SerializeToString(), job.settings.max_file_bytes)),
            batch_size=1,
            num_cpus=_CPUS,
            memory=_DECODE_MEMORY_BYTES,  # which also keeps Ray from making one step of this and the next
        )
        actors = self._actors or max(1, int(ray.cluster_resources().get("CPU", 1)) // 2)
        pool = ray.data.ActorPoolStrategy(size=actors)
        classified = decoded.map_batches(
            PieceClassifier,
            fn_constructor_args=(self._settings, job.target.model.digest),
            batch_size=1,
            compute=pool,
            num_cpus=_CPUS,
        )
        for row in classified.iter_rows():
            yield pickle.loads(row["piece"])  # noqa: S301 - of this job's own processes


class PieceClassifier:
    """An actor: it loads the model when it is made, and classifies pieces that were decoded elsewhere."""

    def __init__(self, settings: TargetSettings, digest: str) -> None:
        self._target = settings.open(ExitStack())
        model = self._target.model
        if model.digest != digest:
            raise JobError(f"version {model.version} of model {model.model!r} was replaced while the job began")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Pixels become probabilities."""
        return {"piece": np.array([self._classify(data) for data in batch["piece"]], object)}

    def _classify(self, data: bytes) -> bytes:
        piece, batches = pickle.loads(data)  # noqa: S301 - of this job's own processes
        answers = []
        for records, decoded in batches:
            probabilities = self._target.infer(decoded.pixels) if len(decoded.pixels) else np.empty((0, 1), np.float32)
            answers.append((records, replace(decoded, pixels=decoded.pixels[:0]), probabilities))
        return pickle.dumps((piece, answers))


class _Pieces(Datasource):  # type: ignore[misc]
    """The pieces of a job, one after the other: a block each."""

    def __init__(
        self, records: Callable[[], Iterable[Record]], cut: Callable[[Iterable[Record]], Iterator[Piece]]
    ) -> None:
        super().__init__()
        self._records = records
        self._cut = cut

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:  # noqa: ARG002
        records, cut = self._records, self._cut

        def read() -> Iterator[Any]:
            for piece in cut(records()):
                yield pa.table({"piece": pa.array([pickle.dumps(piece)], pa.large_binary())})

        return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]


def cut_pieces(
    records: Iterable[Record],
    *,
    listing: Listing,
    part_size: int,
    batch_size: int,
    batches: int,
    wanted: frozenset[int],
) -> Iterator[Piece]:
    """The pieces of those parts that are wanted, in order; batches as a job without Ray makes them."""
    for number, part in enumerate(list_parts(records, part_size)):
        check_part(listing, number, part)
        if number in wanted:
            cut = [part[start : start + batch_size] for start in range(0, len(part), batch_size)]
            count = -(-len(cut) // batches)
            for index in range(count):
                yield Piece(number, index, count, cut[index * batches : (index + 1) * batches])


def _decode(settings: DecodeSettings, batch: dict[str, Any]) -> dict[str, Any]:
    return {"piece": np.array([_decode_piece(settings, data) for data in batch["piece"]], object)}


def _decode_piece(settings: DecodeSettings, data: bytes) -> bytes:
    piece: Piece = pickle.loads(data)  # noqa: S301 - of this job's own processes
    done = [
        ([_without_bytes(record) for record in batch], decode_chunk([record.content for record in batch], settings))
        for batch in piece.batches
    ]
    return pickle.dumps((replace(piece, batches=[]), done), protocol=5)


def _without_bytes(record: Record) -> Record:
    return record._replace(content=MissingContent("it was read"))


@contextmanager
def _connected() -> Iterator[None]:
    """A cluster; it keeps from this process's signals what `ray.init` would take."""
    begun = not ray.is_initialized()
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if begun:
        ray.init(logging_level="error", log_to_driver=False, include_dashboard=False)
    if main:
        signal.signal(signal.SIGTERM, before)
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # a piece a block: none waits for others
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if begun:
            ray.shutdown()


def _cause(error: BaseException) -> str:
    cause = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        cause = inner
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1] if str(cause).strip() else ''}"[:500]
