"""The picture files of a folder, for whoever wants only their paths."""

from dataclasses import dataclass
from pathlib import Path

from inferry_client.batch.errors import JobError
from inferry_client.batch.folder import SUFFIXES, FolderInput
from inferry_client.batch.records import FileContent, MissingContent


@dataclass(frozen=True)
class PictureFile:
    """A file that looks like a picture.

    Attributes:
        path: below the folder.
    """

    path: str


def find_pictures(folder: Path, *, recursive: bool) -> list[PictureFile]:
    """The files that look like pictures, in the order of their paths.

    Raises:
        JobError: no folder, or no picture in it.
    """
    found: list[str] = []
    for record in FolderInput(folder, recursive=recursive).records():
        if isinstance(record.content, FileContent):
            found.append(str(Path(record.content.path).relative_to(folder)))
        elif isinstance(record.content, MissingContent):  # reading it will say why
            found.append(record.id)
    if not found:
        where = "in it or below" if recursive else "directly in it"
        raise JobError(f"{folder} has no pictures {where}; expected files ending in {', '.join(SUFFIXES)}")
    return [PictureFile(path) for path in found]
