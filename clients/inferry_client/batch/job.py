"""A batch job that was opened, to its summary.

Other threads and processes read, decode and send chunks; the caller's thread hands them out, takes the answers in
order and writes the parts. In memory are at most two chunks a worker, four where they are small, and the records of the
parts they belong to.
"""

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.decode import Decoded
from inferry_client.batch.decoding import Decoder
from inferry_client.batch.errors import JobError
from inferry_client.batch.keeping import Draining, Keeping
from inferry_client.batch.opening import Job
from inferry_client.batch.parts import PartRows
from inferry_client.batch.plan import Plan, check_part, list_parts
from inferry_client.batch.predict import Target
from inferry_client.batch.priority import give_way
from inferry_client.batch.records import Record
from inferry_client.batch.report import Times
from inferry_client.batch.settings import Progress, chunks_under_way, default_batch_size


@dataclass(frozen=True)
class Summary:
    """What a job did: every picture is in exactly one of classified and bad.

    Attributes:
        plan: of this run.
        classified: pictures with an answer, of earlier runs too.
        kinds: of the errors of those without.
        resumed: pictures of parts of this plan that were complete before.
        earlier: pictures of earlier runs, over other pictures.
        earlier_bad: those of them without an answer.
        times: where the time went.
    """

    plan: Plan
    classified: int
    kinds: Counter[str]
    resumed: int
    earlier: int
    earlier_bad: int
    times: Times

    @property
    def bad(self) -> int:
        """Pictures without an answer."""
        return self.kinds.total()


class Engine(Protocol):
    """Makes the parts of a job that are not complete, and gives them to who keeps them."""

    def run(self, job: Job, keeping: Keeping, draining: Draining, batch_size: int) -> None:
        """All of them, with batches of so many pictures.

        Raises:
            StoppedError: the job was told to stop.
            InferryError: it could not go on.
        """


def run_job(job: Job, engine: Engine, *, progress: Progress, draining: Draining | None = None) -> Summary:
    """Do what is left of a job.

    Args:
        job: from `open_job`, which is still open.
        engine: makes its parts.
        progress: told what is done, first of complete parts, then of each chunk.
        draining: tells it to stop.

    Raises:
        StoppedError: it was told to; complete parts are kept.
        InferryError: the server refused or stayed away, or too many pictures have no answer; complete parts are kept.
    """
    job.store.withdraw_success()
    draining = draining or Draining()
    draining.working = True
    keeping = Keeping(job, progress, draining)
    model = job.target.model
    batch_size = job.settings.batch_size or default_batch_size(model.picture_bytes, most=model.max_batch_size)
    try:
        keeping.count_done()
        if any(job.is_open(number) for number in range(len(job.listing.parts))):
            engine.run(job, keeping, draining, batch_size)
        keeping.finish()
    finally:
        job.target.stop()
        keeping.close()
        kinds = job.store.write_errors()
    if keeping.pictures != job.pictures:
        raise JobError(f"{keeping.pictures} pictures are in the parts of {job.store}; expected {job.pictures}")
    job.store.write_success(pictures=keeping.pictures, answered=keeping.pictures - keeping.bad)
    return Summary(
        plan=job.plan,
        classified=keeping.pictures - keeping.bad,
        kinds=kinds,
        resumed=keeping.resumed,
        earlier=job.earlier,
        earlier_bad=keeping.earlier_bad,
        times=keeping.times.ended(),
    )


class LocalEngine:
    """Reads, decodes and asks on this machine; its methods are called on one thread."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def run(self, job: Job, keeping: Keeping, draining: Draining, batch_size: int) -> None:
        """Every part that is not complete."""
        run = _Run(job, keeping, draining, self._decoder, batch_size)
        try:
            for number, part in enumerate(list_parts(job.records(), job.plan.part_size)):
                check_part(job.listing, number, part)
                if job.is_open(number):
                    run.send_part(number, part)
            run.finish()
        finally:
            run.end()


class _Run:
    """The chunks of a job that are under way."""

    def __init__(self, job: Job, keeping: Keeping, draining: Draining, decoder: Decoder, batch_size: int) -> None:
        workers = job.settings.workers
        self._batch_size = batch_size
        self._most = chunks_under_way(workers, batch_size * job.target.model.picture_bytes)
        self._job = job
        self._keeping = keeping
        self._draining = draining
        self._decoder = decoder
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batch", initializer=give_way)
        self._under_way: deque[tuple[int, list[Record], bool, Future[tuple[Decoded, NDArray[np.float32]]]]] = deque()
        self._rows = PartRows()

    def send_part(self, number: int, part: list[Record]) -> None:
        """Hand out a part; waits where enough is under way."""
        batch_size = self._batch_size
        for start in range(0, len(part), batch_size):
            chunk = part[start : start + batch_size]
            while len(self._under_way) >= self._most:  # guard: batch-chunks-bounded
                self._take_oldest()
            decoding = self._decoder.start([record.content for record in chunk])
            future = self._pool.submit(_answer, self._job.target, decoding, self._keeping.times)
            self._under_way.append((number, chunk, start + batch_size >= len(part), future))

    def finish(self) -> None:
        """Take what is left."""
        while self._under_way:
            self._take_oldest()

    def end(self) -> None:
        """Wait for nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take_oldest(self) -> None:
        number, records, ends_part, future = self._under_way.popleft()
        self._keeping.add(self._rows, (records, *self._draining.wait_for(future)))
        if ends_part:
            rows, self._rows = self._rows, PartRows()
            self._keeping.commit(number, rows)


def _answer(target: Target, decoding: Callable[[], Decoded], times: Times) -> tuple[Decoded, NDArray[np.float32]]:
    decoded = decoding()
    times.decoded(decoded)
    if not len(decoded.pixels):
        return decoded, np.empty((0, 1), np.float32)
    with times.asking():
        return decoded, target.infer(decoded.pixels)
