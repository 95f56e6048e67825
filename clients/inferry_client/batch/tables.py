"""Tables and lists of pictures: Parquet and CSV files with a column of paths or bytes, text files of paths."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inferry_client.batch.addresses import is_address, read_address
from inferry_client.batch.errors import InputError, JobError, reason_of
from inferry_client.batch.records import DataContent, MissingContent, Record, printable_name
from inferry_client.batch.sources import Source
from inferry_client.batch.unique import UniqueIds

_ROWS_AT_A_TIME = 64
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
        except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
            raise InputError(f"{self.source} cannot be read: {reason_of(error)}") from error

    def _rows(self) -> Iterator[tuple[Any, Any]]:
        name = self.source.name.lower()
        if name.endswith(".parquet"):
            return self._parquet_rows()
        return self._csv_rows() if name.endswith(".csv") else self._lines()

    def _parquet_rows(self) -> Iterator[tuple[Any, Any]]:
        with self.source.open() as raw, pq.ParquetFile(raw) as file:
            column = self._choose(file.schema_arrow.names)
            names = [column] + ([self.id_column] if self.id_column else [])
            for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME, columns=names):
                pictures = batch.column(column).to_pylist()
                ids = batch.column(self.id_column).to_pylist() if self.id_column else [None] * len(pictures)
                yield from zip(ids, pictures, strict=True)

    def _csv_rows(self) -> Iterator[tuple[Any, Any]]:
        with io.TextIOWrapper(self.source.open(), newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            column = self._choose(list(rows.fieldnames or ()))
            for row in rows:
                yield (row[self.id_column] if self.id_column else None), row[column]

    def _lines(self) -> Iterator[tuple[Any, Any]]:
        with io.TextIOWrapper(self.source.open(), encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if path := line.rstrip("\r\n"):
                    yield None, path

    def _choose(self, names: Sequence[str]) -> str:
        wanted = [self.column] if self.column else _PICTURE_COLUMNS
        found = next((name for name in wanted if name in names), None)
        missing = self.column if found is None and self.column else None
        if self.id_column and self.id_column not in names:
            missing = self.id_column
        if found is None or missing:
            raise JobError(
                f"{self.source} has no column {missing or 'of pictures that could be told'}; it has "
                f"{', '.join(names) or 'none'}: name them with --column and --id-column"
            )
        return found

    def _record(self, number: int, given: Any, picture: Any, ids: UniqueIds, stamp: str) -> Record:
        data, path = _parts(picture)
        own_id = str(number)
        if self.id_column is not None or not isinstance(picture, bytes | dict):  # else numbers are unique as they are
            own_id = ids.of(printable_name(str(given) if given is not None else path or own_id))
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


def _parts(picture: Any) -> tuple[bytes | None, str | None]:
    """Bytes and path of a cell."""
    if isinstance(picture, dict):
        picture = picture.get("bytes") if picture.get("bytes") is not None else picture.get("path")
    if isinstance(picture, bytes):
        return picture, None
    return None, picture if isinstance(picture, str) and picture else None
