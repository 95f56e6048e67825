"""The members of a tar archive, and the damage between them.

Python's `tarfile` ends without a word at a header that is damaged or cut, at a file without an end, and at the first
end of archives that were put one behind the other. Here, each of these is told, and reading goes on at the next header
that is whole, as GNU tar's does. Unlike there, an archive without an end (two blocks of zeros; one is enough) is
damaged: one that was cut between two members is in no way different.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from inferry_client.batch.errors import reason_of

_BLOCK = tarfile.BLOCKSIZE
_MANY = 1 << 20
_ZEROS = bytes(_MANY)
_MOST_HEADER_BYTES = 1 << 20
"""Of a header of more than a block: long names, PAX records. What needs more was never written by a tar."""


@dataclass(frozen=True)
class Damage:
    """Something that is no member.

    Attributes:
        at: the byte where it begins.
        reason: what was found there.
        is_rest: whether nothing comes after it.
    """

    at: int
    reason: str
    is_rest: bool


class TarMembers:
    """Reads an archive from its beginning to its end. One thread uses it.

    Args:
        file: unpacked; it is never set back, which a packed one would have to be unpacked again for.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._blocks = _Blocks(file)
        self._archive = _Archive(fileobj=self._blocks, mode="r")  # type: ignore[arg-type] # which is not written

    def __iter__(self) -> Iterator[tarfile.TarInfo | Damage]:
        archive, blocks = self._archive, self._blocks
        ended = False  # nothing but zeros came since the last member
        bad: int | None = None  # where something began that is no header
        name = ""
        while True:
            at = archive.offset
            try:
                if not blocks.reach(at):  # guard: batch-tar-data-cut
                    yield Damage(at, f"the archive ends within {name!r}", is_rest=True)
                    return
                block = blocks.peek()
                if len(block) < _BLOCK:
                    break
                if not any(block):
                    archive.offset = blocks.skip_zeros()
                    ended = True
                    continue
                member = self._read_member(at)
            except Exception as error:  # noqa: BLE001 - of files and what unpacks them: OSError, zlib's, lzma's, ...
                yield Damage(at, reason_of(error), is_rest=True)
                return
            if member is None:
                bad = at if bad is None else bad
                continue
            if bad is not None:
                yield _no_header(bad, at, is_rest=False)
            ended, bad, name = False, None, member.name
            yield member
        if bad is not None:
            yield _no_header(bad, at + len(block), is_rest=True)
        elif any(block):
            yield Damage(at, f"the archive ends within a header, after {len(block)} of {_BLOCK} bytes", is_rest=True)
        elif not ended:  # guard: batch-tar-end
            end = "it was cut between two members, or not closed" if at else "it is empty"
            yield Damage(at, f"the archive has no end: {end}", is_rest=True)

    def open(self, member: tarfile.TarInfo) -> IO[bytes] | None:
        """The bytes of the latest member; None if it has none, as a link."""
        return self._archive.extractfile(member) if member.isreg() else None

    def _read_member(self, at: int) -> tarfile.TarInfo | None:
        """A member whose header begins here; None: none does, and the next one may begin at the archive's offset."""
        archive, blocks = self._archive, self._blocks
        blocks.bounded = True
        try:
            member = tarfile.TarInfo.fromtarfile(archive)
            if archive.offset > at and member.size >= 0:  # guard: batch-tar-forward
                return member
        except (tarfile.HeaderError, ValueError, RecursionError):
            pass
        finally:
            blocks.bounded = False
        archive.offset = max(at + _BLOCK, blocks.tell())
        return None


def _no_header(start: int, end: int, *, is_rest: bool) -> Damage:
    return Damage(start, f"no header of a member; {end - start} bytes were passed over", is_rest)


class _Archive(tarfile.TarFile):
    """Headers are read one at a time with it."""

    def next(self) -> None:
        """Nothing: else the first header would be read when it is made, and damage end that."""


class _Blocks:
    """A file whose next block can be looked at before it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file: Any = file
        self._ahead = b""
        self._used = 0  # of what was read ahead
        self.bounded = False

    def reach(self, position: int) -> bool:
        """Go on to a position; False: the file ends before it."""
        if self.tell() == position:
            return True
        self.seek(position - 1)
        return len(self.read(1)) == 1

    def peek(self) -> bytes:
        """The next block, or what there is of it; it is still to be read."""
        if len(self._ahead) - self._used < _BLOCK:
            self._ahead = self.read(_BLOCK)
            self._used = 0
        return self._ahead[self._used : self._used + _BLOCK]

    def skip_zeros(self) -> int:
        """Pass over blocks of zeros, as many as there are at once; to where they end."""
        while (ahead := self.read(_MANY)) == _ZEROS:
            pass
        rest = ahead.lstrip(b"\0")
        self._ahead = ahead
        self._used = (len(self._ahead) - len(rest)) // _BLOCK * _BLOCK
        return self.tell()

    def read(self, size: int) -> bytes:
        if self.bounded and not 0 <= size <= _MOST_HEADER_BYTES:  # guard: batch-tar-header-size
            raise tarfile.HeaderError(f"a header of {size} bytes; expected at most {_MOST_HEADER_BYTES}")
        data = self._ahead[self._used : self._used + size]
        self._used += len(data)
        return data if len(data) == size else data + bytes(self._file.read(size - len(data)))

    def tell(self) -> int:
        return int(self._file.tell()) - len(self._ahead) + self._used

    def seek(self, position: int) -> int:
        ahead = position - self.tell() + self._used
        if 0 <= ahead <= len(self._ahead):
            self._used = ahead
        else:
            self._ahead, self._used = b"", 0
            self._file.seek(position)
        return position
