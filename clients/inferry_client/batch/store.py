"""A job's folder: `_plan.json`, `part-00000.parquet` ..., `errors.csv`.

A part holds the answers of its pictures and, in the file's metadata, the pictures that had none:
one rename commits both, so that every picture is in exactly one of the two whenever a job stops.
`errors.csv` is derived from the parts.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inferry_client.batch.errors import JobError
from inferry_client.batch.plan import Plan, read_plan, write_plan

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
    """Reads and writes a job's folder. One job at a time may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors_file = folder / "errors.csv"
        self._plan_file = folder / "_plan.json"  # readers of a folder of Parquet files skip a leading _

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
        except (OSError, ValueError) as error:
            raise JobError(f"{self._plan_file} is no plan of a batch job: {error}; --overwrite begins anew") from error

    def begin(self, plan: Plan, *, overwrite: bool) -> None:
        """Keep the plan; with `overwrite`, remove what an earlier job left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            self._plan_file.unlink(missing_ok=True)
            for part in self.done_parts():
                self._part_file(part).unlink()
            self.errors_file.unlink(missing_ok=True)
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
        return sum(pq.read_metadata(self._part_file(part)).num_rows for part in self.done_parts())

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
            metadata = pq.read_schema(self._part_file(part)).metadata or {}
            yield from json.loads(metadata.get(_ERRORS_KEY, b"[]"))

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
    finally:
        beside.unlink(missing_ok=True)  # there only after an error or an interrupt
