"""A batch job that was opened, to its summary.

Other threads and processes read, decode and send chunks; the caller's thread hands them out, takes the answers in
order and writes the parts. In memory are at most two chunks a worker, and the records of the parts they belong to.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.decode import Decoded
from inferry_client.batch.decoding import Decoder
from inferry_client.batch.errors import JobError, StoppedError
from inferry_client.batch.formats import part_bytes
from inferry_client.batch.opening import Job
from inferry_client.batch.parts import PartRows
from inferry_client.batch.plan import Plan, list_parts, part_digest, part_length
from inferry_client.batch.predict import Target
from inferry_client.batch.receipts import Receipt
from inferry_client.batch.records import Record
from inferry_client.batch.report import Times
from inferry_client.batch.settings import DEFAULT_BATCH_SIZE, Progress, errors_allowed

_LOOK_S = 0.2  # between two looks at whether the job is to stop


@dataclass(frozen=True)
class Summary:
    """What a job did: every picture is in exactly one of classified and bad.

    Attributes:
        plan: of this run.
        classified: pictures with an answer, of earlier runs too.
        kinds: of the errors of those without.
        resumed: pictures of parts that were complete before.
        times: where the time went.
    """

    plan: Plan
    classified: int
    kinds: Counter[str]
    resumed: int
    times: Times

    @property
    def bad(self) -> int:
        """Pictures without an answer."""
        return self.kinds.total()


@dataclass
class Draining:
    """Tells a job to stop: it finishes the part it is at, if it can in time."""

    grace_s: float = 20.0
    working: bool = False
    ends_at: float | None = None

    def begin(self) -> None:
        """Stop; called again, stop at once.

        Raises:
            StoppedError: the job has not begun its work: as a signal's handler raises, where the job is.
        """
        if not self.working:
            raise _stopped("before its first part")
        self.ends_at = time.monotonic() + (self.grace_s if self.ends_at is None else 0.0)

    @property
    def begun(self) -> bool:
        """Whether the job is to stop."""
        return self.ends_at is not None

    @property
    def over(self) -> bool:
        """Whether it is to stop at once."""
        return self.ends_at is not None and time.monotonic() >= self.ends_at


def run_job(job: Job, decoder: Decoder, *, progress: Progress, draining: Draining | None = None) -> Summary:
    """Do what is left of a job.

    Args:
        job: from `open_job`, which is still open.
        decoder: reads and decodes its pictures.
        progress: told what is done, first of complete parts, then of each chunk.
        draining: tells it to stop.

    Raises:
        StoppedError: it was told to; complete parts are kept.
        InferryError: the server refused or stayed away, or too many pictures have no answer; complete parts are kept.
    """
    job.store.withdraw_success()
    draining = draining or Draining()
    draining.working = True
    run = _Run(job, decoder, progress, draining)
    try:
        run.run()
    finally:
        kinds = job.store.write_errors()
    if run.pictures != job.pictures:
        raise JobError(f"{run.pictures} pictures are in the parts of {job.store}; expected {job.pictures}")
    job.store.write_success(pictures=run.pictures, answered=run.pictures - run.bad)
    return Summary(job.plan, run.pictures - run.bad, kinds, run.resumed, run.times.ended())


class _Run:
    """One run of a job; its methods are called on one thread."""

    def __init__(self, job: Job, decoder: Decoder, progress: Progress, draining: Draining) -> None:
        self._job = job
        self._decoder = decoder
        self._progress = progress
        self._draining = draining
        self._allowed = errors_allowed(job.settings.max_errors, job.pictures)
        self._pool = ThreadPoolExecutor(job.settings.workers, thread_name_prefix="batch")
        self._under_way: deque[tuple[int, list[Record], bool, Future[tuple[Decoded, NDArray[np.float32]]]]] = deque()
        self._rows = PartRows()
        self.times = Times()
        self.pictures = self.bad = self.resumed = 0

    def run(self) -> None:
        """Every part that is not complete."""
        self._count_done()
        batch_size = self._job.settings.batch_size or min(DEFAULT_BATCH_SIZE, self._job.target.model.max_batch_size)
        try:
            for number, part in enumerate(list_parts(self._job.records(), self._job.plan.part_size)):
                self._check_part(number, part)
                if self._job.has(number) and self._job.plan.first_part + number not in self._job.done:
                    self._send_part(self._job.plan.first_part + number, part, batch_size)
            while self._under_way:
                self._take_oldest()
        finally:
            self._job.target.stop()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _count_done(self) -> None:
        for part, receipt in self._job.store.receipts():
            self._count(receipt)
            if part_length(self._job.plan, part):
                self.resumed += len(receipt.entries)
        self._progress(self.pictures, self.bad)
        self._check_errors()

    def _check_part(self, number: int, part: list[Record]) -> None:
        digests = self._job.listing.parts
        if number >= len(digests) or part_digest(part) != digests[number]:  # guard: batch-listing-kept
            raise JobError(
                f"the input changed while the job ran, at {part[0].id!r} or one of the {len(part) - 1} pictures after "
                "it; complete parts are kept: run again with --incremental, or put the input back"
            )

    def _send_part(self, number: int, part: list[Record], batch_size: int) -> None:
        for start in range(0, len(part), batch_size):
            chunk = part[start : start + batch_size]
            while len(self._under_way) >= 2 * self._job.settings.workers:
                self._take_oldest()
            decoding = self._decoder.start([record.content for record in chunk])
            future = self._pool.submit(_answer, self._job.target, decoding, self.times)
            self._under_way.append((number, chunk, start + batch_size >= len(part), future))

    def _take_oldest(self) -> None:
        number, records, ends_part, future = self._under_way.popleft()
        decoded, probabilities = self._wait_for(future)
        before = len(self._rows.entries) - len(self._rows.ids)
        self._rows.add(records, decoded, probabilities)
        self._progress(len(records), len(self._rows.entries) - len(self._rows.ids) - before)
        if ends_part:
            self._commit(number)

    def _wait_for(self, future: "Future[tuple[Decoded, NDArray[np.float32]]]") -> tuple[Decoded, NDArray[np.float32]]:
        while True:
            if self._draining.over:
                raise _stopped("before the part that it was at was complete")
            try:
                return future.result(timeout=_LOOK_S)
            except NotYetError:
                if future.done():
                    raise

    def _commit(self, number: int) -> None:
        job = self._job
        job.target.check_unchanged()
        with self.times.writing():
            data = part_bytes(self._rows.answers(job.target.model.labels), job.plan)
            self._count(job.store.commit_part(number, data, self._rows.entries, plan=job.plan))
        self._rows = PartRows()
        self._check_errors()
        if self._draining.begun and self.pictures < job.pictures:
            raise _stopped("after a complete part")

    def _count(self, receipt: Receipt) -> None:
        self.pictures += len(receipt.entries)
        self.bad += receipt.bad

    def _check_errors(self) -> None:
        if self.bad > self._allowed:  # guard: batch-max-errors
            raise JobError(
                f"{self.bad} of {self.pictures} pictures could not be classified, and of {self._job.pictures} in all "
                f"{self._allowed} are allowed (--max-errors); {self._job.store.errors_file} says why"
            )


def _answer(target: Target, decoding: Callable[[], Decoded], times: Times) -> tuple[Decoded, NDArray[np.float32]]:
    decoded = decoding()
    times.decoded(decoded)
    if not len(decoded.pixels):
        return decoded, np.empty((0, 1), np.float32)
    with times.asking():
        return decoded, target.infer(decoded.pixels)


def _stopped(when: str) -> StoppedError:
    return StoppedError(f"the job was told to stop, {when}; complete parts are kept: run again to go on")
