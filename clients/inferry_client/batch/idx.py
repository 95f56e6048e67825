"""The pictures of IDX files, as MNIST is published: a header, then pixels, one picture after another."""

import gzip
import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import IO

from inferry_client.batch.errors import InputError, reason_of
from inferry_client.batch.records import (
    MOST_LOST,
    Content,
    DataContent,
    MissingContent,
    PixelsContent,
    Record,
    SliceContent,
)
from inferry_client.batch.sources import Source

_UINT8 = 0x08
_RANKS = (3, 4)  # N, H, W or N, H, W, C
_MOST_PIXELS = 1 << 26
_ENDED = "the file ends before it"


@dataclass
class IdxInput:
    """An IDX file of uint8 pictures `(N, H, W)` or `(N, H, W, C)`, plain or packed with gzip. Ids are row numbers.

    Attributes:
        source: the file.
        left_out: nothing ever is.
    """

    source: Source
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return str(self.source)

    def records(self) -> Iterator[Record]:
        """Every picture; where the file ends early, one that says so for each that is missing.

        One more where there is more than the header promises, or the file's end is damaged.

        Raises:
            InputError: the header is none of such a file, or promises far more than there is.
        """
        packed = self.source.name.lower().endswith(".gz")
        try:
            source = self.source.pinned()
            stamp = source.stamp()
            with source.open() as raw, _unpacked(raw) if packed else raw as file:
                count, shape, start = self._read_header(file)
                contents = (
                    self._unpack(file, count, prod(shape)) if packed else self._place(source, file, count, start, shape)
                )
                for number, content in enumerate(contents):
                    if number < count:
                        yield Record(str(number), prod(shape), f"{stamp}-{number}", PixelsContent(content, shape))
                    else:
                        yield Record("(after the last picture)", 0, "", content)
        except OSError as error:
            raise InputError(f"{self.source} cannot be read: {reason_of(error)}") from error

    def _place(
        self, source: Source, file: IO[bytes], count: int, start: int, shape: tuple[int, ...]
    ) -> Iterator[Content]:
        size = prod(shape)
        there = file.seek(0, io.SEEK_END) - start
        self._check_lost(count, there // size)
        for number in range(count):
            yield SliceContent(source, start + number * size, size)
        if there > count * size:  # guard: batch-idx-surplus
            yield _surplus(f"{there - count * size} bytes")

    def _unpack(self, file: IO[bytes], count: int, size: int) -> Iterator[Content]:
        why = ""
        for number in range(count):
            content = _next_of(file, size) if not why else MissingContent(why)
            if isinstance(content, MissingContent) and not why:
                why = content.reason
                self._check_lost(count, number)
            yield content
        if not why:
            end = _next_of(file, 1)  # reads the sum of all bytes, too
            if isinstance(end, DataContent):
                yield _surplus("bytes")
            elif end.reason != _ENDED:
                yield end

    def _check_lost(self, count: int, there: int) -> None:
        if count - there > MOST_LOST:  # guard: batch-idx-promise
            raise InputError(f"{self.source} is damaged: its header promises {count} pictures, and {there} are there")

    def _read_header(self, file: IO[bytes]) -> tuple[int, tuple[int, ...], int]:
        try:
            zeros, kind, rank = struct.unpack(">HBB", file.read(4))
            if zeros or kind != _UINT8 or rank not in _RANKS:
                raise ValueError(f"it begins with {zeros:04x} {kind:02x} {rank:02x}")
            count, *shape = struct.unpack(f">{rank}I", file.read(4 * rank))
            if len(shape) == 3 and shape[2] not in (1, 3):
                raise ValueError(f"pictures have {shape[2]} channels")
            if not 0 < prod(shape) <= _MOST_PIXELS:
                raise ValueError(f"pictures have the shape {shape}")
        except (struct.error, ValueError, EOFError, zlib.error) as error:
            raise InputError(
                f"{self.source} is no IDX file of uint8 pictures, [N, H, W] or [N, H, W, 1 or 3]: {error}"
            ) from error
        return count, tuple(shape), 4 + 4 * rank


def _surplus(what: str) -> MissingContent:
    return MissingContent(f"{what} follow that the file's header does not promise")


def _next_of(file: IO[bytes], size: int) -> DataContent | MissingContent:
    try:
        data = file.read(size)
    except (EOFError, OSError, zlib.error) as error:
        return MissingContent(f"the file is damaged: {reason_of(error)}")
    return DataContent(data) if len(data) == size else MissingContent(_ENDED)


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=file)  # type: ignore[return-value] # which it is in all that is used here
