"""The pictures of tar archives (WebDataset shards are such) and of zip archives, in the archive's order."""

import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inferry_client.batch.errors import JobError
from inferry_client.batch.folder import SUFFIXES
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
from inferry_client.batch.unique import UniqueIds

TAR_SUFFIXES = (".tar",)
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


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
        """Every member with a picture's suffix. Where the archive is damaged, the last record says so."""
        self.left_out.clear()
        ids = UniqueIds()
        packed = self.source.name.lower().endswith(PACKED_SUFFIXES)
        try:
            stamp = self.source.stamp()
            with (
                self.source.open() as file,
                tarfile.open(fileobj=file, mode="r|*" if packed else "r:", errorlevel=2) as archive,
            ):
                while (member := archive.next()) is not None:
                    vars(archive)["members"] = []  # which it would keep, all of them
                    if not self._is_picture(member):
                        continue
                    content = self._unpack(archive, member) if packed else self._place(member)
                    name = ids.of(printable_name(member.name))
                    yield Record(name, member.size, f"{stamp}-{member.offset_data}", content)
        except (OSError, EOFError, tarfile.TarError, ValueError) as error:
            yield _damaged(ids, error)
        except Exception as error:  # noqa: BLE001 - what zlib and lzma raise of damaged data
            yield _damaged(ids, error)

    def _is_picture(self, member: tarfile.TarInfo) -> bool:
        return not member.isdir() and is_picture(member.name, self.left_out)

    def _place(self, member: tarfile.TarInfo) -> Content:
        if not member.isreg() or member.issparse():
            return MissingContent("it is a link or a device in the archive; expected a file")
        return SliceContent(self.source, member.offset_data, member.size)

    def _unpack(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Content:
        try:
            check_size(member.size, self.max_file_bytes)
        except ContentError as error:
            return MissingContent(str(error))
        file = archive.extractfile(member) if member.isreg() else None
        if file is None:
            return MissingContent("it is a link or a device in the archive; expected a file")
        return DataContent(file.read())


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
        """Every member with a picture's suffix.

        Raises:
            JobError: it is no zip archive, or its directory is damaged.
        """
        self.left_out.clear()
        ids = UniqueIds()
        try:
            stamp = self.source.stamp()
            with self.source.open() as file, zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise JobError(f"{self.source} cannot be read as a zip archive: {error}") from error
        for index, member in enumerate(members):
            if not member.is_dir() and is_picture(member.filename, self.left_out):
                name = ids.of(printable_name(member.filename))
                content = ZipContent(self.source, index, member.file_size)
                yield Record(name, member.file_size, f"{stamp}-{member.CRC}", content)


def is_picture(name: str, left_out: Counter[str]) -> bool:
    """Whether a name has a picture's suffix; what has none is counted."""
    if name.lower().endswith(SUFFIXES):
        return True
    suffix = Path(name).suffix.lower()
    left_out[printable_name(suffix) if suffix else "files without suffix"] += 1
    return False


def _damaged(ids: UniqueIds, error: Exception) -> Record:
    return Record(ids.of("(the rest of the archive)"), 0, "", MissingContent(f"the archive is damaged: {error}"))
