"""A batch job from its settings to its summary.

Workers prepare and send chunks; the caller's thread hands them out, takes the answers in order and
writes the parts. At most two chunks a worker are in memory.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferry_client.batch.errors import JobError
from inferry_client.batch.pictures import PictureFile, find_pictures, listing_digest
from inferry_client.batch.plan import Chunk, Plan, chunks, part_length
from inferry_client.batch.predict import JOB_RETRIES, PictureModel, Predictor, picture_model
from inferry_client.batch.store import JobFolder, PartRows
from inferry_client.client import Client
from inferry_client.commands.models import choose_model
from inferry_client.errors import ModelNotFoundError
from inferry_client.retries import RetryPolicy

DEFAULT_BATCH_SIZE = 32
DEFAULT_PART_SIZE = 1024


@dataclass(frozen=True)
class BatchSettings:
    """What a job is asked to do.

    Attributes:
        folder: of the pictures.
        out: of plan, parts and errors.
        model: None for the one of the job in `out`, else the only one that is ready.
        version: empty for the one of the job in `out`, else the newest.
        batch_size: pictures a request; None for 32, or the model's limit if lower.
        part_size: pictures a part; None for the one of the job in `out`, else 1024.
        workers: chunks prepared or under way at a time.
        recursive: whether to look into subfolders.
        all_probabilities: whether to keep every class's probability.
        overwrite: whether to begin anew where `out` holds a job.
        retries: while the server is away or full.
    """

    folder: Path
    out: Path
    model: str | None = None
    version: str = ""
    batch_size: int | None = None
    part_size: int | None = None
    workers: int = 4
    recursive: bool = True
    all_probabilities: bool = False
    overwrite: bool = False
    retries: RetryPolicy = JOB_RETRIES


@dataclass(frozen=True)
class Summary:
    """What a job did: every picture is in exactly one of classified and bad."""

    plan: Plan
    classified: int
    bad: int
    resumed: int  # pictures of parts that were complete before
    seconds: float


@dataclass(frozen=True)
class Job:
    """A job that may begin: what could be wrong with it has been checked, and its folder is its own."""

    plan: Plan
    model: PictureModel
    pictures: list[PictureFile]
    store: JobFolder
    settings: BatchSettings


@contextmanager
def open_job(client: Client, settings: BatchSettings) -> Iterator[Job]:
    """Check the settings against the folder, the server and the job that `out` may hold.

    On leaving, `out` is free for another job; until then it is refused there.

    Raises:
        InferryError: the job cannot run; says why.
    """
    pictures = find_pictures(settings.folder, recursive=settings.recursive)
    store = JobFolder(settings.out)
    store.check_place()
    begun = None if settings.overwrite else store.read_plan()
    model = _pin_model(client, settings, begun)
    if settings.batch_size is not None and settings.batch_size > model.max_batch_size:
        raise JobError(
            f"--batch-size is {settings.batch_size}; model {model.model!r} takes 1 to {model.max_batch_size} a request"
        )
    plan = Plan(
        listing_sha256=listing_digest(pictures),
        picture_count=len(pictures),
        model=model.model,
        model_version=model.version,
        part_size=settings.part_size or (begun.part_size if begun else DEFAULT_PART_SIZE),
        all_probabilities=settings.all_probabilities,
    )
    with store.locked():
        store.begin(plan, overwrite=settings.overwrite)
        yield Job(plan, model, pictures, store, settings)


def run_job(client: Client, job: Job, *, progress: Callable[[int], object]) -> Summary:
    """Do what is left of a job.

    Args:
        client: whose timeout holds for each request.
        job: from `open_job`, which is still open.
        progress: told how many pictures are done, first those of complete parts, then each chunk's.

    Raises:
        InferryError: the server refused or stayed away; complete parts are kept.
    """
    started = time.monotonic()
    done_parts = job.store.done_parts()
    resumed = sum(part_length(job.plan, part) for part in done_parts)
    progress(resumed)
    batch_size = job.settings.batch_size or min(DEFAULT_BATCH_SIZE, job.model.max_batch_size)
    try:
        _run_chunks(client, job, chunks(job.plan, done_parts=done_parts, batch_size=batch_size), progress)
    finally:
        bad = job.store.write_errors()
    return Summary(job.plan, job.store.count_rows(), bad, resumed, time.monotonic() - started)


def _run_chunks(client: Client, job: Job, todo: Iterable[Chunk], progress: Callable[[int], object]) -> None:
    stop = threading.Event()
    predictor = Predictor(client, job.model, job.settings.folder, stop=stop, retries=job.settings.retries)
    pool = ThreadPoolExecutor(job.settings.workers, thread_name_prefix="batch")
    under_way: deque[tuple[Chunk, Future[PartRows]]] = deque()
    part = PartRows()

    def take_oldest() -> None:
        nonlocal part
        chunk, future = under_way.popleft()
        rows = future.result()
        part.paths += rows.paths
        part.probabilities += rows.probabilities
        part.errors += rows.errors
        if chunk.ends_part:
            job.store.write_part(chunk.part, part, plan=job.plan, labels=job.model.labels)
            part = PartRows()
        progress(chunk.stop - chunk.start)

    try:
        for chunk in todo:
            paths = [picture.path for picture in job.pictures[chunk.start : chunk.stop]]
            under_way.append((chunk, pool.submit(predictor.predict, paths)))
            if len(under_way) >= 2 * job.settings.workers:
                take_oldest()
        while under_way:
            take_oldest()
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _pin_model(client: Client, settings: BatchSettings, begun: Plan | None) -> PictureModel:
    name = settings.model or (begun.model if begun else choose_model(client, None))
    pinned = begun.model_version if begun and begun.model == name else ""
    try:
        return picture_model(client.describe_model(name, version=settings.version or pinned))
    except ModelNotFoundError as error:
        if pinned and not settings.version:
            raise JobError(
                f"{error}; the job in {settings.out} was begun with version {pinned}: --overwrite begins anew"
            ) from error
        raise
