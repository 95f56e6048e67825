"""The pictures of a folder, in an order that does not depend on the file system."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inferry_client.batch.errors import JobError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


@dataclass(frozen=True, order=True)
class PictureFile:
    """A file that looks like a picture.

    Attributes:
        path: below the folder, with `/`.
        size_bytes: 0 where it cannot be told.
    """

    path: str
    size_bytes: int


def find_pictures(folder: Path, *, recursive: bool) -> list[PictureFile]:
    """The files with a picture's suffix in any case, sorted by path.

    Raises:
        JobError: no folder, a folder that cannot be read, or no picture in it.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise JobError(f"{folder} is {found}; expected a folder of pictures")
    pictures = sorted(_walk(folder, recursive=recursive))
    if not pictures:
        where = "in it or below" if recursive else "directly in it"
        raise JobError(f"{folder} has no pictures {where}; expected files ending in {', '.join(SUFFIXES)}")
    return pictures


def listing_digest(pictures: Iterable[PictureFile]) -> str:
    """sha256 over paths and sizes: changes when a picture comes, goes or is replaced by another size."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(os.fsencode(picture.path) + b"\0" + str(picture.size_bytes).encode() + b"\n")
    return digest.hexdigest()


def printable_path(path: str) -> str:
    """The path as text that any file can hold; names that are not UTF-8 keep their bytes as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(folder: Path, *, recursive: bool) -> Iterator[PictureFile]:
    def refuse(error: OSError) -> None:
        raise JobError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        for name in files:
            if name.lower().endswith(SUFFIXES):
                path = Path(root, name)
                yield PictureFile(path.relative_to(folder).as_posix(), _size_bytes(path))
        if not recursive:
            folders.clear()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it will say why, in errors.csv
