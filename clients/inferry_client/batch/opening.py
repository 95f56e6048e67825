"""From settings to a job that may begin: everything that can be wrong with it is found here."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from inferry_client.batch.errors import JobError
from inferry_client.batch.folder import SUFFIXES
from inferry_client.batch.inputs import Input
from inferry_client.batch.plan import Listing, Plan, part_count, part_length
from inferry_client.batch.predict import PictureModel, Target
from inferry_client.batch.receipts import Receipt
from inferry_client.batch.records import Record
from inferry_client.batch.settings import DEFAULT_PART_SIZE, BatchSettings
from inferry_client.batch.store import JobFolder, check_whole, open_store
from inferry_client.batch.survey import Known, survey


@dataclass(frozen=True)
class Job:
    """A job that may begin: what could be wrong with it has been checked, and its folder is its own.

    Attributes:
        plan: of this run.
        listing: of its pictures.
        target: that answers.
        store: of its results.
        settings: as given.
        records: the pictures of the plan, anew with each call.
        earlier: pictures in parts of earlier runs.
        gone: the id of one of those that is not in the input any more; None if all are, or there are none.
        done: parts that are complete, as the job goes on.
    """

    plan: Plan
    listing: Listing
    target: Target
    store: JobFolder
    settings: BatchSettings
    records: Callable[[], Iterable[Record]]
    earlier: int
    gone: str | None
    done: set[int]

    @property
    def pictures(self) -> int:
        """Of this run and of earlier ones; of a shard, its own."""
        numbers = (n for n in range(part_count(self.plan)) if self.has(n) or self.plan.first_part + n in self.done)
        return self.earlier + sum(part_length(self.plan, self.plan.first_part + number) for number in numbers)

    def is_open(self, number: int) -> bool:
        """Whether the nth part of the plan is to be done here, and is not yet."""
        return self.has(number) and self.plan.first_part + number not in self.done

    def close_part(self, number: int) -> None:
        """The nth part of the plan is complete."""
        self.done.add(self.plan.first_part + number)

    def has(self, number: int) -> bool:
        """Whether the nth part of the plan is done here."""
        return self.settings.shard.has(number)


Found: TypeAlias = Callable[[Target, int], object]
"""Told while pictures are listed: what will answer, and how many pictures there are so far."""


@contextmanager
def open_job(
    source: Input,
    settings: BatchSettings,
    open_target: Callable[[Plan | None], Target],
    *,
    found: Found = lambda *_: None,
) -> Iterator[Job]:
    """Check the settings against the input, the model and the job that `out` may hold.

    On leaving, `out` is free for another job; until then it is refused there.

    Args:
        source: of the pictures.
        settings: of the job.
        open_target: what answers, given the plan of the job in `out`.
        found: see `Found`.

    Raises:
        InferryError: the job cannot run; says why.
    """
    store = _open_store(settings, source)
    target = open_target(None if settings.overwrite else store.read_plan())
    _check_batch_size(settings, target.model)
    with store.locked():
        job = _survey(source, settings, target, store, found)
        if settings.overwrite:
            store.clear()
        store.begin(job.plan, extends=settings.incremental)
        yield replace(job, done=store.done_parts())


def plan_job(source: Input, settings: BatchSettings, open_target: Callable[[Plan | None], Target]) -> Job:
    """What a job would do; nothing is written.

    Raises:
        InferryError: it could not run; says why.
    """
    store = _open_store(settings, source)
    target = open_target(None if settings.overwrite else store.read_plan())
    _check_batch_size(settings, target.model)
    job = _survey(source, settings, target, store, lambda *_: None)
    if not settings.overwrite:
        store.check(job.plan, extends=settings.incremental)
    return replace(job, done=set() if settings.overwrite else store.done_parts())


def _open_store(settings: BatchSettings, source: Input) -> JobFolder:
    """Where results go; nothing is written yet."""
    if settings.incremental and settings.shard.count > 1:
        raise JobError("--incremental and --shard exclude each other; merge the shards, then classify what is new")
    store = open_store(settings)
    store.check_place()
    _require_pictures(source)
    return store


def _require_pictures(source: Input) -> None:
    """See that there is one; nobody is asked and nothing written for an input without."""
    if next(source.records(), None) is None:
        others = ", ".join(f"{count} {kind}" for kind, count in source.left_out.most_common(8))
        left_out = f"; left out: {others}; expected names that end with {', '.join(SUFFIXES)}" if others else ""
        raise JobError(f"{source} has no pictures{left_out}")


def _survey(source: Input, settings: BatchSettings, target: Target, store: JobFolder, tell: Found) -> Job:
    begun = None if settings.overwrite else store.read_plan()
    done = set() if settings.overwrite else store.done_parts()
    part_size = settings.part_size or (begun.part_size if begun else DEFAULT_PART_SIZE)
    first_part = begun.first_part if begun else 0
    if settings.incremental:
        first_part = max(done, default=-1) + 1
    earlier = [part for part in sorted(done) if part < first_part]
    known = Known(map(store.read_receipt, earlier))

    def records() -> Iterable[Record]:
        return known.fresh(source.records()) if first_part else source.records()

    def receipt_of(number: int) -> Receipt | None:
        return store.read_receipt(first_part + number) if first_part + number in done else None

    found = survey(
        known.compare(source.records(), most_bytes=settings.max_file_bytes) if first_part else source.records(),
        part_size=part_size,
        receipt_of=receipt_of,
        most_bytes=settings.max_file_bytes,
        found=partial(tell, target),
    )
    plan = _plan(settings, target.model, found.listing, known, first_part=first_part, part_size=part_size)
    if begun and begun.model_digest == target.model.older_digest:  # it holds for the same files, and more of them
        plan = replace(plan, model_digest=begun.model_digest)
    check_whole(settings, plan)
    if begun and (settings.incremental or begun == plan):
        _refuse_changed(known.changed or found.changed, store)
    gone = _first_gone(known, map(store.read_receipt, earlier)) if known.gone else None
    return Job(plan, found.listing, target, store, settings, records, known.count, gone, set())


def _first_gone(known: Known, receipts: Iterable[Receipt]) -> str | None:
    return next((entry.id for receipt in receipts for entry in receipt.entries if known.is_gone(entry.id)), None)


def _plan(
    settings: BatchSettings, model: PictureModel, listing: Listing, known: Known, *, first_part: int, part_size: int
) -> Plan:
    return Plan(
        listing_sha256=listing.sha256,
        picture_count=listing.count,
        first_part=first_part,
        model=model.model,
        model_version=model.version,
        model_digest=model.digest,
        part_size=part_size,
        output=settings.output,
        top_k=settings.top_k,
        all_probabilities=settings.all_probabilities,
        max_file_bytes=settings.max_file_bytes,
        gone_count=len(known.gone),
        gone_sha256=hashlib.sha256(b"".join(sorted(known.gone))).hexdigest() if known.gone else "",
    )


def _refuse_changed(changed: str | None, store: JobFolder) -> None:
    if changed is not None:
        raise JobError(
            f"{changed!r} has other contents than when its result or error was written to {store}, or could not be "
            "read then; choose another --out, or begin anew with --overwrite"
        )


def _check_batch_size(settings: BatchSettings, model: PictureModel) -> None:
    if settings.batch_size is not None and settings.batch_size > model.max_batch_size:
        raise JobError(
            f"--batch-size is {settings.batch_size}; model {model.model!r} takes 1 to {model.max_batch_size} a request"
        )
