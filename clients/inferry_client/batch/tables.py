"""Tables and lists of pictures: Parquet and CSV files with a column of paths or bytes, text files of paths."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inferry_client.batch.addresses import is_address, read_address
from inferry_client.batch.errors import InputError, JobError, reason_of
from inferry_client.batch.records import MOST_LOST, DataContent, MissingContent, Record, printable_name
from inferry_client.batch.sources import Source
from inferry_client.batch.unique import UniqueIds

_ROWS_AT_A_TIME = 64
_MOST_LINE = 1 << 24  # characters
_NAMED = 30  # columns in a message
_PICTURE_COLUMNS = ("image", "picture", "bytes", "path", "file", "filename", "file_name")
"""Where pictures are looked for, in this order, if no column is named."""


@dataclass
class TableInput:
    """A Parquet or CSV file, or a list; a path in it is relative to the folder that it lies in.

    A picture is a column of bytes, of paths, or of both as data sets have it (`{bytes, path}`). The id is that of
    `id_column`; where none is named, the path, or where there may be bytes the number of the row.

    Attributes:
        source: the file.
        column: of the pictures; None: the first of `image`, `picture`, `bytes`, `path`, `file`, ...
        id_column: None: see above.
        left_out: nothing ever is.
    """

    source: Source
    column: str | None = None
    id_column: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return str(self.source)

    def records(self) -> Iterator[Record]:
        """Every row.

        Raises:
            JobError: it has no such column; or InputError: it cannot be read.
        """
        try:
            stamp = self.source.stamp()
            ids = UniqueIds()
            for number, (given, picture) in zip(count(), self._rows(), strict=False):
                yield self._record(number, given, picture, ids, stamp)
        except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
            raise InputError(f"{self.source} cannot be read: {reason_of(error)}") from error

    def _rows(self) -> Iterator[tuple[Any, Any]]:
        """Id and picture of each row; a picture may be a `_Lost` one."""
        name = self.source.name.lower()
        if name.endswith(".parquet"):
            return self._parquet_rows()
        return self._csv_rows() if name.endswith(".csv") else self._lines()

    def _parquet_rows(self) -> Iterator[tuple[Any, Any]]:
        with self.source.open() as raw, pq.ParquetFile(raw, page_checksum_verification=True) as file:
            column = self._choose(file.schema_arrow.names)
            for group in range(file.num_row_groups):
                yield from self._group_rows(file, group, column)

    def _group_rows(self, file: pq.ParquetFile, group: int, column: str) -> Iterator[tuple[Any, Any]]:
        """Those of a row group; where it is damaged, the rows that did not come are lost."""
        names = [column] + ([self.id_column] if self.id_column else [])
        left, why = file.metadata.row_group(group).num_rows, "they did not come"
        try:
            for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME, row_groups=[group], columns=names):
                pictures = batch.column(column).to_pylist()
                ids = batch.column(self.id_column).to_pylist() if self.id_column else [None] * len(pictures)
                left -= len(pictures)
                yield from zip(ids, pictures, strict=True)
        except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
            why = reason_of(error)
        if left > MOST_LOST:
            raise InputError(f"{self.source} cannot be read: {left} rows of row group {group} are lost: {why}")
        for _ in range(left):
            yield None, _Lost("", f"row group {group} of the file is damaged: {why}")

    def _csv_rows(self) -> Iterator[tuple[Any, Any]]:
        with self._text(newline="") as file:
            rows = csv.reader(self._bounded(file), strict=True)  # else an open quote takes the rows up to the next one
            names = next(rows, [])
            picture = names.index(self._choose(names))
            own_id = names.index(self.id_column) if self.id_column else None
            while True:
                before = rows.line_num
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:  # guard: batch-csv-goes-on
                    lines = (
                        f"lines {before + 1} to {rows.line_num}" if rows.line_num > before + 1 else f"line {before + 1}"
                    )
                    yield None, _Lost(f"({lines})", f"{lines} of the file cannot be read: {error}")
                    continue
                if row:
                    yield None if own_id is None else _cell(row, own_id), _cell(row, picture)

    def _lines(self) -> Iterator[tuple[Any, Any]]:
        with self._text(newline=None) as file:
            for line in self._bounded(file):
                if path := line.rstrip("\r\n"):
                    yield None, path

    def _text(self, *, newline: str | None) -> io.TextIOWrapper:
        """The file as UTF-8; bytes that are not are those of a name, as the system has it."""
        raw = self.source.open()
        beginning = raw.read(2)
        raw.seek(0)
        if beginning in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raw.close()
            raise InputError(f"{self.source} cannot be read: it is UTF-16; save the file as UTF-8")
        return io.TextIOWrapper(raw, newline=newline, encoding="utf-8-sig", errors="surrogateescape")

    def _bounded(self, file: io.TextIOWrapper) -> Iterator[str]:
        """Its lines; one that does not end is none."""
        for number, line in enumerate(iter(partial(file.readline, _MOST_LINE), ""), 1):
            if len(line) >= _MOST_LINE:  # guard: batch-lines-bounded
                raise InputError(f"{self.source} cannot be read: line {number} has {_MOST_LINE} characters or more")
            yield line

    def _choose(self, names: Sequence[str]) -> str:
        wanted = [self.column] if self.column else _PICTURE_COLUMNS
        found = next((name for name in wanted if name in names), None)
        missing = self.column if found is None and self.column else None
        if self.id_column and self.id_column not in names:
            missing = self.id_column
        if found is None or missing:
            raise JobError(
                f"{self.source} has no column {missing or 'of pictures that could be told'}; it has "
                f"{', '.join(map(printable_name, names[:_NAMED])) or 'none'}: name them with --column and --id-column"
            )
        return found

    def _record(self, number: int, given: Any, picture: Any, ids: UniqueIds, stamp: str) -> Record:
        own_id = str(number)
        if isinstance(picture, _Lost):
            return Record(ids.of(picture.name or own_id), 0, "", MissingContent(picture.reason))
        data, path = _parts(picture)
        if self.id_column is not None or not isinstance(picture, bytes | dict):  # else numbers are unique as they are
            own_id = ids.of(printable_name(_text(given) if given is not None else path or own_id))
        if data is not None:
            return Record(own_id, len(data), f"{stamp}-{number}", DataContent(data))
        if path is None:
            return Record(
                own_id, 0, "", MissingContent(f"the row holds {type(picture).__name__}; expected a path or bytes")
            )
        return self._of_path(own_id, path)

    def _of_path(self, own_id: str, path: str) -> Record:
        if is_address(path):
            from inferry_client.batch.remote.source import addressed_record

            try:
                return addressed_record(own_id, read_address(path))
            except JobError as error:
                return Record(own_id, 0, "", MissingContent(str(error)))
        return self.source.beside(path)._replace(id=own_id)


@dataclass(frozen=True)
class _Lost:
    """Rows that cannot be read.

    Attributes:
        name: of them; empty: it is one, and has its number.
        reason: why.
    """

    name: str
    reason: str


def _cell(row: Sequence[str], index: int) -> str | None:
    return row[index] if index < len(row) else None


def _text(given: Any) -> str:
    """An id as text; its bytes are those of a name."""
    return given.decode("utf-8", "surrogateescape") if isinstance(given, bytes) else str(given)


def _parts(picture: Any) -> tuple[bytes | None, str | None]:
    """Bytes and path of a cell."""
    if isinstance(picture, dict):
        picture = picture.get("bytes") if picture.get("bytes") is not None else picture.get("path")
    if isinstance(picture, bytes):
        return picture, None
    return None, picture if isinstance(picture, str) and picture else None
