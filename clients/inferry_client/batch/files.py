"""Writing files so that a crash of the process or of the machine leaves the old or the new one, whole."""

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from inferry_client.batch.errors import JobError

UNFINISHED = ".writing"
"""How files end whose writing did not; nobody reads them."""


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """The whole file, of pieces, or none of it, kept once this returns.

    Raises:
        JobError: it cannot be written.
    """
    beside = path.with_name(f"_{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with beside.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)  # guard: batch-folder-synced
    except OSError as error:
        raise JobError(
            f"{path} cannot be written: {error.strerror}; complete parts are kept: make room and run again"
        ) from error
    finally:
        beside.unlink(missing_ok=True)  # there only after an error or an interrupt


def sync_folder(folder: Path) -> None:
    """Have a folder's names survive a crash, where its file system can promise it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing."""
    for path in folder.glob(f"_*{UNFINISHED}"):
        path.unlink(missing_ok=True)
