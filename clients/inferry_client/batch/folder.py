"""The pictures of a folder, in an order that does not depend on the file system.

Streamed: only the names in the folder it is at, and in those above, are in memory.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inferry_client.batch.errors import JobError
from inferry_client.batch.records import FileContent, MissingContent, Record, printable_name
from inferry_proto.files import open_file

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
BESIDE_FILES, OF_BESIDE = "._", "files of macOS (._*)"
"""How macOS calls what it keeps of a file's attributes where a file system or an archive has no room for them."""
"""What is taken for a picture. GIF and TIFF are not decoded, here or by a server: they are errors, and not left out."""

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8", b"RIFF", b"II*\x00", b"MM\x00*")
_MOST_DEPTH = 200  # folders in folders; beyond it, something loops that is no link


@dataclass
class FolderInput:
    """A folder of files.

    Attributes:
        folder: where they are.
        recursive: whether to look into subfolders.
        follow_links: whether links to folders are subfolders too.
        left_out: what is no picture, by kind; of the latest pass over the folder.
    """

    folder: Path
    recursive: bool = True
    follow_links: bool = False
    left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            found = "a file" if self.folder.exists() else "nothing"
            raise JobError(f"{self.folder} is {found}; expected a folder of pictures")

    def __str__(self) -> str:
        return os.fspath(self.folder)

    def records(self) -> Iterator[Record]:
        """Every file with a picture's suffix in any case, and those without suffix that begin like a picture.

        In the order of their paths. What cannot be looked at is a record too, whose content says why.
        """
        self.left_out.clear()
        yield from self._walk(os.fspath(self.folder), "", ())

    def _walk(self, path: str, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[Record]:
        try:
            status = os.stat(path)  # noqa: PTH116 - names that many are handled as text
            here = (status.st_dev, status.st_ino)
            if here in above or len(above) > _MOST_DEPTH:
                yield _missing(below, "a link that leads back to a folder above it")
                return
            entries = _sorted_entries(path)
        except OSError as error:
            yield _missing(below, f"the folder cannot be listed: {error.strerror}")
            return
        beside = os.path.join(path, "")  # noqa: PTH118
        for key, is_folder in entries:
            if not is_folder:
                record = self._file(beside + key, key, below)
                if record is not None:
                    yield record
            elif not self.recursive:
                self.left_out["subfolders"] += 1
            elif os.path.islink(os.path.join(path, key[:-1])) and not self.follow_links:  # noqa: PTH114, PTH118
                self.left_out["links to folders (--follow-links)"] += 1
            else:
                yield from self._walk(os.path.join(path, key[:-1]), below + key, (*above, here))  # noqa: PTH118

    def _file(self, path: str, name: str, below: str) -> Record | None:
        if name.startswith(BESIDE_FILES):  # guard: batch-macos-folder
            self.left_out[OF_BESIDE] += 1
            return None
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        kind = suffix.lower()
        if kind not in SUFFIXES and not (not suffix and stem and _begins_like_a_picture(path)):
            self.left_out[printable_name(kind) if kind else "files without suffix that are no pictures"] += 1
            return None
        return file_record(path, printable_name(below + name))


def file_record(path: str, own_id: str) -> Record:
    """A file of its own; one that cannot be looked at says why when it is read."""
    try:
        status = os.stat(path)  # noqa: PTH116 - names that many are handled as text
    except OSError as error:
        return Record(own_id, 0, "", MissingContent(error.strerror or str(error)))
    except ValueError as error:  # a name with a null character
        return Record(own_id, 0, "", MissingContent(str(error)))
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Record(own_id, size, file_stamp(status), FileContent(path))


def file_stamp(status: os.stat_result) -> str:
    """Of a file: another one as soon as anybody wrote to it, put another in its place, or set its time back."""
    return f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"


def _sorted_entries(path: str) -> list[tuple[str, bool]]:
    """Name and whether it is a folder, in the order that whole paths have; a folder's name ends with `/`."""
    with os.scandir(path) as entries:
        named = ((entry.name, _is_folder(entry)) for entry in entries)
        return sorted((f"{name}/", True) if is_folder else (name, False) for name, is_folder in named)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # looking at it will say why


def _begins_like_a_picture(path: str) -> bool:
    try:
        with open_file(path) as file:
            return file.read(16).startswith(_BEGINNINGS)
    except OSError:
        return False


def _missing(below: str, reason: str) -> Record:
    return Record(printable_name(below) or "/", 0, "", MissingContent(reason))
