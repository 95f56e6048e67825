"""What keeps a job's parts, whoever makes them: it gathers, commits and counts, and says when a job is to end."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.decode import Decoded
from inferry_client.batch.errors import JobError, StoppedError, StopSignal
from inferry_client.batch.formats import part_bytes
from inferry_client.batch.opening import Job
from inferry_client.batch.parts import PartRows
from inferry_client.batch.plan import part_length
from inferry_client.batch.priority import give_way
from inferry_client.batch.receipts import Receipt
from inferry_client.batch.records import Record
from inferry_client.batch.report import Times
from inferry_client.batch.settings import Progress, errors_allowed

Result = TypeVar("Result")
Answered: TypeAlias = tuple[Sequence[Record], Decoded, NDArray[np.float32]]
"""Records, what they decoded to, and the `(N, K)` probabilities of those without a fault."""


_LOOK_S = 0.2  # between two looks at whether a job is to stop


@dataclass
class Draining:
    """Tells a job to stop: it finishes the part it is at, if it can in time."""

    grace_s: float = 20.0
    working: bool = False
    early: bool = False  # it was told before it was working
    ends_at: float | None = None

    def begin(self) -> None:
        """Stop; called again, stop at once.

        Raises:
            StopSignal: the job has not begun its work: as a signal's handler raises, where the job is. If it is lost
                there, the job ends as soon as it looks.
        """
        if not self.working:
            self.early = True
            raise StopSignal
        self.ends_at = time.monotonic() + (self.grace_s if self.ends_at is None else 0.0)

    @property
    def begun(self) -> bool:
        """Whether the job is to stop."""
        return self.ends_at is not None

    @property
    def over(self) -> bool:
        """Whether it is to stop at once."""
        return self.ends_at is not None and time.monotonic() >= self.ends_at

    def check(self) -> None:
        """See that there is time.

        Raises:
            StoppedError: it is over.
        """
        if self.early:
            raise _stopped("before its first part")
        if self.over:
            raise _stopped("before the part that it was at was complete")

    def wait_for(self, future: Future[Result]) -> Result:
        """The result of a future, whose error is raised, if there is time for it.

        Raises:
            StoppedError: there is none left.
        """
        while True:
            self.check()
            try:
                return future.result(timeout=_LOOK_S)
            except NotYetError:
                if future.done():
                    raise


@dataclass
class _Pieces:
    """Those of a part that have come."""

    count: int
    came: dict[int, list[Answered]] = field(default_factory=dict)


class Keeping:
    """Commits the parts of a job and counts its pictures. One thread calls it.

    A thread of its own makes and syncs a part while the next one is classified; there is never more than one part on
    its way to the disk. `finish` waits for it.
    """

    def __init__(self, job: Job, progress: Progress, draining: Draining) -> None:
        self._job = job
        self._progress = progress
        self._draining = draining
        self._allowed = errors_allowed(job.settings.max_errors, job.pictures)
        self._pieces: dict[int, _Pieces] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="batch-write", initializer=give_way)
        self._writing: Future[None] | None = None
        self._publishing = threading.Lock()
        self._closed = False
        self.times = Times()
        self.pictures = self.bad = self.resumed = self.earlier_bad = 0

    def count_done(self) -> None:
        """What earlier runs did.

        Raises:
            JobError: too many pictures have no answer.
        """
        for part, receipt in self._job.store.receipts():
            self._count(receipt)
            if part_length(self._job.plan, part):
                self.resumed += len(receipt.entries)
            else:
                self.earlier_bad += receipt.bad
        self._progress(self.pictures, self.bad)
        self._check_errors()

    def add(self, rows: PartRows, answered: Answered) -> None:
        """Add what was answered to the rows of its part."""
        before = rows.bad
        rows.add(*answered)
        self._progress(len(answered[0]), rows.bad - before)

    def add_piece(self, number: int, index: int, count: int, answered: Sequence[Answered]) -> None:
        """Add one of the pieces of the nth part of the plan, in any order; the last one commits it.

        A piece that came before, as from a node that died after all, is left out.
        """
        if not self._job.is_open(number):
            return
        pieces = self._pieces.setdefault(number, _Pieces(count))
        pieces.came.setdefault(index, list(answered))
        if len(pieces.came) == count:
            rows = PartRows()
            for _, batches in sorted(self._pieces.pop(number).came.items()):
                for batch in batches:
                    self.times.decoded(batch[1])
                    self.add(rows, batch)
            self._job.close_part(number)
            self.commit(number, rows)

    def commit(self, number: int, rows: PartRows) -> None:
        """Keep the nth part of the plan for good, once the one before it is kept.

        Raises:
            StoppedError: the job was told to stop, and there is more.
            JobError: of this part or the one before: the model is another, it cannot be written, or too many pictures
                have no answer.
        """
        self._wait()
        self._writing = self._writer.submit(self._commit, number, rows)
        if self._draining.begun:
            self._wait()
            if self.pictures < self._job.pictures:
                raise _stopped("after a complete part")

    def finish(self) -> None:
        """Have the last part kept; errors as of `commit`."""
        self._wait()

    def close(self) -> None:
        """Let nothing be written any more once this returns: it waits for the disk, and for no server."""
        with self._publishing:
            self._closed = True
        self._writer.shutdown(wait=False)

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._draining.wait_for(writing)

    def _commit(self, number: int, rows: PartRows) -> None:
        job = self._job
        job.target.check_unchanged()
        with self._publishing, self.times.writing():
            if self._closed:  # guard: batch-closed-writes-nothing
                return
            data = part_bytes(rows.answers(job.target.model.labels), job.plan)
            self._count(job.store.commit_part(job.plan.first_part + number, data, rows.entries, plan=job.plan))
        self._check_errors()

    def _count(self, receipt: Receipt) -> None:
        self.pictures += len(receipt.entries)
        self.bad += receipt.bad

    def _check_errors(self) -> None:
        if self.bad > self._allowed:  # guard: batch-max-errors
            raise JobError(
                f"{self.bad} of {self.pictures} pictures could not be classified, and of {self._job.pictures} in all "
                f"{self._allowed} are allowed (--max-errors); {self._job.store.errors_file} says why"
            )


def _stopped(when: str) -> StoppedError:
    return StoppedError(f"the job was told to stop, {when}; complete parts are kept: run again to go on")
