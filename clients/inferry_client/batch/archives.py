"""The pictures of tar archives (WebDataset shards are such) and of zip archives, in the archive's order."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from inferry_client.batch.errors import InputError, reason_of
from inferry_client.batch.folder import BESIDE_FILES, OF_BESIDE, SUFFIXES
from inferry_client.batch.records import (
    Content,
    ContentError,
    DataContent,
    MissingContent,
    Record,
    SliceContent,
    ZipContent,
    check_size,
    printable_name,
)
from inferry_client.batch.sources import Source
from inferry_client.batch.tar_members import Damage, TarMembers
from inferry_client.batch.unique import UniqueIds

TAR_SUFFIXES = (".tar",)
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

_ZIP_MEMBER, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_MOST_ZIP_END_BYTES = 22 + 0xFFFF  # with a comment
_ZIP64 = 0xFFFF  # members are counted elsewhere
_NO_FILE = MissingContent("it is a link, a device or a sparse file in the archive; expected a file")


@dataclass
class TarInput:
    """A tar archive. Of a plain one, pictures are read where they lie; a packed one is unpacked on the way.

    Attributes:
        source: the archive.
        max_file_bytes: a picture with more is not read.
        left_out: what is no picture, by kind; of the latest pass.
    """

    source: Source
    max_file_bytes: int
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return str(self.source)

    def records(self) -> Iterator[Record]:
        """Every member with a picture's suffix, and one that says so wherever the archive is damaged.

        Raises:
            InputError: it cannot be read, or has no member at all and is not empty either.
        """
        self.left_out.clear()
        try:
            source = self.source.pinned()
            with source.open() as file, unpacked(file) as plain:
                yield from self._records(source, plain, packed=plain is not file)
        except OSError as error:
            raise InputError(f"{self.source} cannot be read: {reason_of(error)}") from error

    def _records(self, source: Source, file: IO[bytes], *, packed: bool) -> Iterator[Record]:
        ids, found, stamp = UniqueIds(), False, source.stamp()
        members = TarMembers(file)
        for member in members:
            if isinstance(member, Damage):
                if member.is_rest and not found:
                    raise InputError(f"{self.source} is no tar archive, or damaged: {member.reason}")
                own_id = ids.of(f"(damage at byte {member.at})")
                yield Record(own_id, 0, "", MissingContent(f"the archive is damaged: {member.reason}"))
            elif self._is_picture(member):
                content = self._unpack(members, member) if packed else _place(source, member)
                name = ids.of(printable_name(member.name))
                yield Record(name, member.size, f"{stamp}-{member.offset_data}", content)
            found = True

    def _is_picture(self, member: tarfile.TarInfo) -> bool:
        return not member.isdir() and is_picture(member.name, self.left_out)

    def _unpack(self, members: TarMembers, member: tarfile.TarInfo) -> Content:
        try:
            check_size(member.size, self.max_file_bytes)
            file = members.open(member)
            return DataContent(file.read()) if file else _NO_FILE
        except ContentError as error:
            return MissingContent(str(error))
        except Exception as error:  # noqa: BLE001 - what zlib and lzma raise of damaged data; the next header will too
            return MissingContent(f"the archive is damaged: {reason_of(error)}")


@dataclass
class ZipInput:
    """A zip archive.

    Attributes:
        source: the archive.
        left_out: what is no picture, by kind; of the latest pass.
    """

    source: Source
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return str(self.source)

    def records(self) -> Iterator[Record]:
        """Every member with a picture's suffix, and one that says so where the directory does not list all members.

        Raises:
            InputError: it is no zip archive, or its directory is damaged.
        """
        self.left_out.clear()
        ids = UniqueIds()
        try:
            source = self.source.pinned()
            with source.open() as file, zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                hidden = _what_hides(file, members)
        except Exception as error:  # of damage, zipfile raises what it leads it to
            raise InputError(f"{self.source} cannot be read as a zip archive: {reason_of(error)}") from error
        for index, member in enumerate(members):
            if not member.is_dir() and is_picture(member.filename, self.left_out):
                name = ids.of(printable_name(member.filename))
                content = ZipContent(source, index, member.file_size)
                yield Record(name, member.file_size, f"{source.stamp()}-{member.CRC}", content)
        if hidden:  # guard: batch-zip-hidden
            yield Record(ids.of("(members not listed)"), 0, "", MissingContent(f"the archive is damaged: {hidden}"))


def _place(source: Source, member: tarfile.TarInfo) -> Content:
    if not member.isreg() or member.issparse():
        return _NO_FILE
    return SliceContent(source, member.offset_data, member.size)


def is_picture(name: str, left_out: Counter[str]) -> bool:
    """Whether a name has a picture's suffix; what has none is counted."""
    if Path(name).name.startswith(BESIDE_FILES):  # guard: batch-macos-archive
        left_out[OF_BESIDE] += 1
        return False
    if name.lower().endswith(SUFFIXES):
        return True
    suffix = Path(name).suffix.lower()
    left_out[printable_name(suffix) if suffix else "files without suffix"] += 1
    return False


def _what_hides(file: IO[bytes], members: Sequence[zipfile.ZipInfo]) -> str:
    """How members may be in a zip archive that its directory does not list; empty if none seem to be."""
    file.seek(0)
    if file.read(4) == _ZIP_MEMBER and min((member.header_offset for member in members), default=1) > 0:
        return "it begins with members that its directory does not list"
    file.seek(-min(file.seek(0, io.SEEK_END), _MOST_ZIP_END_BYTES), io.SEEK_END)
    end = file.read()
    at = end.rfind(_ZIP_END)
    promised = int.from_bytes(end[at + 10 : at + 12], "little")
    if promised not in (len(members) % (_ZIP64 + 1), _ZIP64):  # some count no further, and begin anew
        return f"its directory lists {len(members)} members, and its end promises {promised}"
    return ""


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """A file as it is, or unpacked on the way, by how it begins; it may be of several streams, as pbzip2's are."""
    beginning = file.read(6)
    file.seek(0)
    if beginning.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value] # which it is in all that is used here
    if beginning.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if beginning.startswith((b"\xfd7zXZ", b"\x5d\x00\x00\x80")):
        return lzma.LZMAFile(file)
    return file
