"""A job's folder: `_plan.json`, `part-00000.parquet` ..., `_receipts/`, `errors.csv` and, in the end, `_SUCCESS`.

A part is written first, then its receipt, each whole and synced: the receipt commits it. So every picture is in
exactly one part or one error, whenever a job stops. `errors.csv` is derived from the receipts.
"""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from inferry_client.batch.errors import JobError
from inferry_client.batch.places import Place, open_place
from inferry_client.batch.plan import Plan, describe_difference, part_length, read_plan, write_plan
from inferry_client.batch.receipts import Entry, Receipt, read_receipt, write_receipt
from inferry_client.batch.settings import BatchSettings

_PART = re.compile(r"part-(\d{5,})\.(parquet|csv|jsonl)")
_RECEIPT = re.compile(r"part-(\d{5,})\.json")
_PLAN = "_plan.json"  # readers of a folder of Parquet files skip a leading _
_RECEIPTS, _ERRORS, _SUCCESS = "_receipts", "errors.csv", "_SUCCESS"
OVERWRITE, INCREMENTAL = "--overwrite", "--incremental"


class JobFolder:
    """Reads and writes a job's folder. One job at a time may write there, within `locked`.

    Args:
        place: where it is.
        remedies: options that help who finds another job there, and would be taken.
    """

    def __init__(self, place: Place, remedies: Collection[str] = ()) -> None:
        self._place = place
        self._remedies = remedies
        self._without_errors: set[int] = set()  # parts whose receipts need not be read again to list errors

    def __str__(self) -> str:
        return str(self._place)

    @property
    def errors_file(self) -> str:
        """Where errors are listed, for people."""
        return f"{self._place}/{_ERRORS}"

    def check_place(self) -> None:
        """See that the folder is there or can be made.

        Raises:
            JobError: it cannot.
        """
        self._place.check()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The folder, made where it is missing, for one job alone.

        Raises:
            JobError: another job is at work there.
        """
        with self._place.owned([_RECEIPTS]):
            yield

    def read_plan(self) -> Plan | None:
        """The plan of the job that is here, or None.

        Raises:
            JobError: it cannot be read, or there are parts without a plan.
        """
        try:
            return read_plan(self._place.read(_PLAN).decode())
        except FileNotFoundError:
            if self._part_files():
                raise JobError(f"{self} holds part files but no {_PLAN}; choose another folder") from None
            return None
        except (OSError, ValueError, RecursionError) as error:
            remedy = "; --overwrite begins anew" if OVERWRITE in self._remedies else ""
            raise JobError(f"{self}/{_PLAN} is no plan of a batch job: {error}{remedy}") from error

    def clear(self) -> None:
        """Remove what an earlier job left; first what says that it is one."""
        self._place.delete(_PLAN)
        self.withdraw_success()
        for part in self._part_files().values():
            self._place.delete(part)
        for number in self._receipt_numbers():
            self._place.delete(_receipt(number))
        self._place.delete(_ERRORS)

    def withdraw_success(self) -> None:
        """Say no longer that the job is complete."""
        self._place.delete(_SUCCESS)

    def begin(self, plan: Plan, *, extends: bool) -> None:
        """Keep the plan and what is done of it; arguments and errors as of `check`."""
        self.check(plan, extends=extends)
        self._place.write(_PLAN, write_plan(plan).encode())

    def check(self, plan: Plan, *, extends: bool) -> None:
        """See that what is here belongs to a plan.

        Args:
            plan: of this run.
            extends: whether it may be about other pictures than the plan that is here.

        Raises:
            JobError: the folder holds another job, or a damaged part of this one.
        """
        begun = self.read_plan()
        same = begun if begun is None or not extends else _about(begun, plan)
        if same and same != plan:  # guard: batch-same-job
            raise self.holds_another(same, plan)
        self._check_parts(plan)

    def done_parts(self) -> set[int]:
        """The parts that are complete."""
        return self._receipt_numbers() & set(self._part_files())

    def read_receipt(self, part: int) -> Receipt:
        """What a complete part is about.

        Raises:
            JobError: it is damaged.
        """
        ((_, receipt),) = self._read_receipts([part])
        return receipt

    def receipts(self) -> Iterator[tuple[int, Receipt]]:
        """Of all complete parts, in order, one at a time."""
        return self._read_receipts(sorted(self.done_parts()))

    def commit_part(self, part: int, data: bytes, entries: list[Entry], *, plan: Plan) -> Receipt:
        """Keep one part for good."""
        receipt = Receipt(hashlib.sha256(data).hexdigest(), len(data), plan.model_version, entries)
        self._place.write(_part(part, plan), data)
        self._place.write(_receipt(part), write_receipt(receipt))
        self._note_errors(part, receipt)
        return receipt

    def copy_part(self, part: int, source: "JobFolder", *, plan: Plan) -> None:
        """Keep a part that another folder of the same plan has.

        Raises:
            JobError: it is damaged there, or cannot be kept here.
        """
        name, receipt = _part(part, plan), source.read_receipt(part)
        try:
            data, receipt_data = source._place.read(name), source._place.read(_receipt(part))
        except OSError as error:
            raise source._damage(name, error.strerror or str(error)) from error
        if hashlib.sha256(data).hexdigest() != receipt.sha256:  # guard: batch-merged-part-digest
            raise source._damage(name, "its bytes are not those of its receipt")
        self._place.write(name, data)
        self._place.write(_receipt(part), receipt_data)

    def write_errors(self) -> Counter[str]:
        """Bring `errors.csv` up to date with the complete parts, and count what it lists by kind.

        One part's errors at a time are in memory.
        """
        kinds: Counter[str] = Counter()
        parts = sorted(self.done_parts() - self._without_errors)

        def lines() -> Iterator[bytes]:
            yield _csv_line(("id", "kind", "reason"))
            for _, receipt in self._read_receipts(parts):
                for entry in receipt.entries:
                    if entry.kind:
                        kinds[entry.kind] += 1
                        yield _csv_line((entry.id, entry.kind, entry.reason))

        if any(receipt.bad for _, receipt in self._read_receipts(parts)):
            self._place.write_long(_ERRORS, lines())
        else:
            self._place.delete(_ERRORS)
        return kinds

    def write_success(self, *, pictures: int, answered: int) -> None:
        """Say that the job is complete, and what it is."""
        document = {"pictures": pictures, "classified": answered, "errors": pictures - answered}
        self._place.write(_SUCCESS, (json.dumps(document) + "\n").encode())

    def _read_receipts(self, parts: Sequence[int]) -> Iterator[tuple[int, Receipt]]:
        found = self._place.read_all(_receipt(part) for part in parts)
        for part, data in zip(parts, found, strict=True):
            try:
                if isinstance(data, OSError):
                    raise data
                receipt = read_receipt(data)
            except (OSError, ValueError, RecursionError) as error:
                raise self._damage(_receipt(part), str(error)) from error
            self._note_errors(part, receipt)
            yield part, receipt

    def _note_errors(self, part: int, receipt: Receipt) -> None:
        if receipt.bad:
            self._without_errors.discard(part)
        else:
            self._without_errors.add(part)

    def _check_parts(self, plan: Plan) -> None:
        """See that parts and receipts belong to each other and to the plan."""
        parts, committed = self._part_files(), self._receipt_numbers()
        for part, name in sorted(parts.items()):
            if part not in committed and not part_length(plan, part):
                raise self._damage(name, "the job has no such part, and it has no receipt")
        for part, receipt in self.receipts():
            self._check_part(part, parts[part], receipt, plan)

    def _check_part(self, part: int, name: str, receipt: Receipt, plan: Plan) -> None:
        if part >= plan.first_part and len(receipt.entries) != part_length(plan, part):
            raise self._damage(name, f"it is about {len(receipt.entries)} pictures; expected {part_length(plan, part)}")
        try:
            problem = self._place.differs(name, size_bytes=receipt.size_bytes, sha256=receipt.sha256)
        except OSError as error:
            raise self._damage(name, error.strerror or str(error)) from error
        if problem:  # guard: batch-part-digest
            raise self._damage(name, problem)

    def holds_another(self, begun: Plan, plan: Plan) -> JobError:
        """Says which job is here, and what to do: nothing that would be refused then."""
        ways = ["choose another --out"]
        if OVERWRITE in self._remedies:
            ways.append(f"begin anew with {OVERWRITE}")
        if INCREMENTAL in self._remedies and _about(begun, plan) == plan:
            ways.append(f"classify new pictures with {INCREMENTAL}")
        return JobError(f"{self} holds another job: {describe_difference(begun, plan)}; {', or '.join(ways)}")

    def _damage(self, name: str, problem: str) -> JobError:
        return JobError(
            f"{self}/{name} is no whole part of this job: {problem}; delete it and run again: its pictures are then "
            "done anew"
        )

    def _part_files(self) -> dict[int, str]:
        return {int(match[1]): name for name in self._place.names() if (match := _PART.fullmatch(name))}

    def _receipt_numbers(self) -> set[int]:
        return {int(match[1]) for name in self._place.names(_RECEIPTS) if (match := _RECEIPT.fullmatch(name))}


def _part(part: int, plan: Plan) -> str:
    return f"part-{part:05}.{plan.output}"


def _receipt(part: int) -> str:
    return f"{_RECEIPTS}/part-{part:05}.json"


def _csv_line(cells: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def open_store(settings: BatchSettings) -> JobFolder:
    """Where a job's results go; those of a shard, to a folder of their own.

    Raises:
        JobError: `out` is an address that nothing can be written to.
    """
    place = open_place(settings.out)
    if settings.shard.folder_name:
        return JobFolder(place.inner(settings.shard.folder_name), (OVERWRITE,))
    return JobFolder(place, (OVERWRITE, INCREMENTAL))


def check_whole(settings: BatchSettings, plan: Plan) -> None:
    """See that the shards of a job can be merged into `out`.

    Raises:
        JobError: another job is there.
    """
    whole = JobFolder(open_place(settings.out))
    begun = whole.read_plan() if settings.shard.folder_name else None
    if begun and begun != plan:  # guard: batch-shards-mergeable
        raise whole.holds_another(begun, plan)


def _about(begun: Plan, plan: Plan) -> Plan:
    """An earlier plan, as if it had been about the pictures of a later one."""
    return replace(
        begun,
        listing_sha256=plan.listing_sha256,
        picture_count=plan.picture_count,
        first_part=plan.first_part,
        gone_count=plan.gone_count,
        gone_sha256=plan.gone_sha256,
    )
