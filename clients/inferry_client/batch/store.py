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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from inferry_client.batch.errors import JobError
from inferry_client.batch.files import remove_unfinished, write_whole
from inferry_client.batch.ownership import owned
from inferry_client.batch.plan import Plan, describe_difference, part_length, read_plan, write_plan
from inferry_client.batch.receipts import Entry, Receipt, read_receipt, write_receipt

_PART = re.compile(r"part-(\d{5,})\.(parquet|csv|jsonl)")
_RECEIPT = re.compile(r"part-(\d{5,})\.json")


class JobFolder:
    """Reads and writes a job's folder. One job at a time may write there, within `locked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors_file = folder / "errors.csv"
        self.success_file = folder / "_SUCCESS"
        self._plan_file = folder / "_plan.json"  # readers of a folder of Parquet files skip a leading _
        self._receipts = folder / "_receipts"

    def check_place(self) -> None:
        """See that the folder is there or can be made.

        Raises:
            JobError: a file is in its place or above it.
        """
        for place in (self.folder, *self.folder.parents):
            if place.is_dir():
                return
            if place.exists() or place.is_symlink():
                raise JobError(f"--out {self.folder} is to be a folder, but {place} is a file; choose another path")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The folder, made where it is missing, for one job alone.

        Raises:
            JobError: another job is at work there.
        """
        self._receipts.mkdir(parents=True, exist_ok=True)
        with owned(self.folder):
            remove_unfinished(self.folder)
            remove_unfinished(self._receipts)
            yield

    def read_plan(self) -> Plan | None:
        """The plan of the job that is here, or None.

        Raises:
            JobError: it cannot be read, or there are parts without a plan.
        """
        try:
            return read_plan(self._plan_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self._part_files():
                raise JobError(
                    f"{self.folder} holds part files but no {self._plan_file.name}; choose another folder"
                ) from None
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise JobError(f"{self._plan_file} is no plan of a batch job: {error}; --overwrite begins anew") from error

    def clear(self) -> None:
        """Remove what an earlier job left; first what says that it is one."""
        self._plan_file.unlink(missing_ok=True)
        self.success_file.unlink(missing_ok=True)
        for part in self._part_files().values():
            part.unlink()
        for receipt in self._receipts.glob("part-*.json"):
            receipt.unlink()
        self.errors_file.unlink(missing_ok=True)

    def begin(self, plan: Plan, *, extends: bool) -> None:
        """Keep the plan and what is done of it; arguments and errors as of `check`."""
        self.check(plan, extends=extends)
        write_whole(self._plan_file, write_plan(plan).encode())

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
            raise JobError(
                f"{self.folder} holds another job: {describe_difference(same, plan)}; "
                "choose another --out, begin anew with --overwrite, or classify new pictures with --incremental"
            )
        self._check_parts(plan)

    def done_parts(self) -> set[int]:
        """The parts that are complete."""
        return self._receipt_numbers() & set(self._part_files())

    def read_receipt(self, part: int) -> Receipt:
        """What a complete part is about.

        Raises:
            JobError: it is damaged.
        """
        try:
            return read_receipt(self._receipt_file(part).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise self._damage(self._receipt_file(part), str(error)) from error

    def receipts(self) -> Iterator[tuple[int, Receipt]]:
        """Of all complete parts, in order, one at a time."""
        for part in sorted(self.done_parts()):
            yield part, self.read_receipt(part)

    def commit_part(self, part: int, data: bytes, entries: list[Entry], *, plan: Plan) -> Receipt:
        """Keep one part for good."""
        receipt = Receipt(hashlib.sha256(data).hexdigest(), len(data), plan.model_version, entries)
        write_whole(self.folder / f"part-{part:05}.{plan.output}", data)
        write_whole(self._receipt_file(part), write_receipt(receipt))
        return receipt

    def copy_part(self, part: int, source: "JobFolder") -> None:
        """Keep a part that another folder has."""
        file = source.part_file(part)
        write_whole(self.folder / file.name, file.read_bytes())
        write_whole(self._receipt_file(part), source._receipt_file(part).read_bytes())

    def part_file(self, part: int) -> Path:
        """Where a complete part is."""
        return self._part_files()[part]

    def write_errors(self) -> Counter[str]:
        """Bring `errors.csv` up to date with the complete parts, and count what it lists by kind."""
        kinds: Counter[str] = Counter()
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(("id", "kind", "reason"))
        for _, receipt in self.receipts():
            bad = [entry for entry in receipt.entries if entry.kind]
            writer.writerows((entry.id, entry.kind, entry.reason) for entry in bad)
            kinds.update(entry.kind for entry in bad)
        if kinds:
            write_whole(self.errors_file, text.getvalue().encode("utf-8", "backslashreplace"))
        else:
            self.errors_file.unlink(missing_ok=True)
        return kinds

    def write_success(self, *, pictures: int, answered: int) -> None:
        """Say that the job is complete, and what it is."""
        document = {"pictures": pictures, "classified": answered, "errors": pictures - answered}
        write_whole(self.success_file, (json.dumps(document) + "\n").encode())

    def _check_parts(self, plan: Plan) -> None:
        """See that parts and receipts belong to each other and to the plan."""
        for part, path in sorted(self._part_files().items()):
            if part in self._receipt_numbers():
                self._check_part(part, path, plan)
            elif not part_length(plan, part):
                raise self._damage(path, "the job has no such part, and it has no receipt")

    def _check_part(self, part: int, path: Path, plan: Plan) -> None:
        receipt = self.read_receipt(part)
        if part >= plan.first_part and len(receipt.entries) != part_length(plan, part):
            raise self._damage(path, f"it is about {len(receipt.entries)} pictures; expected {part_length(plan, part)}")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._damage(path, error.strerror or str(error)) from error
        if digest != receipt.sha256:  # guard: batch-part-digest
            size = path.stat().st_size
            raise self._damage(path, f"it has {size} bytes that are not the {receipt.size_bytes} of its receipt")

    def _damage(self, path: Path, problem: str) -> JobError:
        return JobError(
            f"{path} is no whole part of this job: {problem}; delete it and run again: its pictures are then done anew"
        )

    def _part_files(self) -> dict[int, Path]:
        if not self.folder.is_dir():
            return {}
        return {int(match[1]): path for path in self.folder.iterdir() if (match := _PART.fullmatch(path.name))}

    def _receipt_numbers(self) -> set[int]:
        if not self._receipts.is_dir():
            return set()
        return {int(match[1]) for path in self._receipts.iterdir() if (match := _RECEIPT.fullmatch(path.name))}

    def _receipt_file(self, part: int) -> Path:
        return self._receipts / f"part-{part:05}.json"


def _about(begun: Plan, plan: Plan) -> Plan:
    """An earlier plan, as if it had been about the pictures of a later one."""
    return replace(
        begun,
        listing_sha256=plan.listing_sha256,
        picture_count=plan.picture_count,
        first_part=plan.first_part,
    )
