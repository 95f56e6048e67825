"""A job's folder: `_plan.json`, `part-00000.parquet` ..., `errors.csv`.

A part holds the answers of its pictures and, in the file's metadata, the pictures that had none:
one rename commits both, so that every picture is in exactly one of the two whenever a job stops.
`errors.csv` is derived from the parts.
"""

import csv
import fcntl
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inferry_client.batch.errors import JobError
from inferry_client.batch.plan import Plan, describe_difference, part_count, part_length, read_plan, write_plan

_ERRORS_KEY = b"inferry.errors"
_PART = re.compile(r"part-(\d{5,})\.parquet")


@dataclass
class PartRows:
    """The answers of one part, gathered chunk by chunk.

    Attributes:
        paths: of the pictures that were answered.
        probabilities: `(N, K)` arrays, in the order of `paths`.
        errors: path and reason of the others.
    """

    paths: list[str] = field(default_factory=list)
    probabilities: list[NDArray[np.float32]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


class JobFolder:
    """Reads and writes a job's folder. One job at a time may write there, within `locked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors_file = folder / "errors.csv"
        self._plan_file = folder / "_plan.json"  # readers of a folder of Parquet files skip a leading _
        self._lock_file = folder / "_lock"

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
        """The folder, made where it is missing, for one job alone; the kernel frees it if the process is killed.

        Raises:
            JobError: another job is at work there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise JobError(
                    f"another job is writing into {self.folder}; wait until it has ended, or choose another --out"
                ) from error
            except OSError:  # a file system without locks, as mounted buckets are
                pass
            yield

    def read_plan(self) -> Plan | None:
        """The plan of the job that is here, or None.

        Raises:
            JobError: it cannot be read, or there are parts without a plan.
        """
        try:
            return read_plan(self._plan_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self.done_parts():
                raise JobError(
                    f"{self.folder} holds part files but no {self._plan_file.name}; choose another folder"
                ) from None
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise JobError(f"{self._plan_file} is no plan of a batch job: {error}; --overwrite begins anew") from error

    def begin(self, plan: Plan, *, overwrite: bool) -> None:
        """Keep the plan and what is done of it; with `overwrite`, remove what an earlier job left.

        Raises:
            JobError: the folder holds another job, or a damaged part of this one.
        """
        if overwrite:
            self._plan_file.unlink(missing_ok=True)
            for part in self.done_parts():
                self._part_file(part).unlink()
            self.errors_file.unlink(missing_ok=True)
        begun = self.read_plan()
        if begun and begun != plan:
            raise JobError(
                f"{self.folder} holds another job: {describe_difference(begun, plan)}; "
                "choose another --out, or begin anew with --overwrite"
            )
        self._check_parts(plan)
        _write_atomically(self._plan_file, write_plan(plan).encode())

    def done_parts(self) -> set[int]:
        """The parts that are complete."""
        if not self.folder.is_dir():
            return set()
        return {int(match[1]) for path in self.folder.iterdir() if (match := _PART.fullmatch(path.name))}

    def write_part(self, part: int, rows: PartRows, *, plan: Plan, labels: tuple[str, ...]) -> None:
        """Commit one part."""
        table = _part_table(rows, plan=plan, labels=labels)
        table = table.replace_schema_metadata({_ERRORS_KEY: json.dumps(rows.errors)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        _write_atomically(self._part_file(part), buffer.getvalue())

    def count_rows(self) -> int:
        """How many pictures the complete parts answer."""
        return sum(self._read_footer(part)[0] for part in self.done_parts())

    def write_errors(self) -> int:
        """Bring `errors.csv` up to date with the complete parts, and say how many pictures it lists."""
        errors = list(self._errors())
        if errors:
            text = io.StringIO(newline="")
            csv.writer(text).writerows([("path", "reason"), *errors])
            _write_atomically(self.errors_file, text.getvalue().encode("utf-8", "backslashreplace"))
        else:
            self.errors_file.unlink(missing_ok=True)
        return len(errors)

    def _errors(self) -> Iterator[tuple[str, str]]:
        for part in sorted(self.done_parts()):
            yield from self._read_footer(part)[1]

    def _check_parts(self, plan: Plan) -> None:
        for part in sorted(self.done_parts()):
            rows, errors = self._read_footer(part)
            expected = part_length(plan, part) if part < part_count(plan) else 0
            if rows + len(errors) != expected:
                raise self._damage(part, f"it is about {rows + len(errors)} pictures; expected {expected}")

    def _read_footer(self, part: int) -> tuple[int, list[tuple[str, str]]]:
        """How many pictures a part answers, and the others with their reasons."""
        try:
            footer = pq.read_metadata(self._part_file(part))
            errors = json.loads((footer.metadata or {}).get(_ERRORS_KEY, b"[]"))
            return footer.num_rows, [(str(path), str(reason)) for path, reason in errors]
        except (OSError, TypeError, ValueError, pa.ArrowException) as error:
            raise self._damage(part, str(error).partition("\n")[0]) from error

    def _damage(self, part: int, problem: str) -> JobError:
        return JobError(
            f"{self._part_file(part)} is no whole part of this job: {problem}; "
            "delete it and run again: its pictures are then done anew"
        )

    def _part_file(self, part: int) -> Path:
        return self.folder / f"part-{part:05}.parquet"


def _part_table(rows: PartRows, *, plan: Plan, labels: tuple[str, ...]) -> Any:
    probabilities = np.concatenate(rows.probabilities) if rows.probabilities else np.empty((0, 1), np.float32)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, 0]  # ties: the lower index, as the server does
    count = len(rows.paths)
    columns: dict[str, Any] = {
        "path": pa.array(rows.paths, pa.string()),
        "label": pa.array([labels[index] if labels else "" for index in best], pa.string()),
        "index": pa.array(best, pa.int32()),
        "probability": pa.array(probabilities[np.arange(count), best], pa.float32()),
        "model": pa.array([plan.model] * count, pa.string()),
        "model_version": pa.array([plan.model_version] * count, pa.string()),
    }
    if plan.all_probabilities:
        columns["probabilities"] = pa.array(list(probabilities), pa.list_(pa.float32()))
    return pa.table(columns)


def _write_atomically(path: Path, data: bytes) -> None:
    """The whole file or none of it, whenever the process or the machine stops."""
    beside = path.with_name(f"_{path.name}.writing")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise JobError(
            f"{path} cannot be written: {error.strerror}; complete parts are kept: make room and run again"
        ) from error
    finally:
        beside.unlink(missing_ok=True)  # there only after an error or an interrupt
