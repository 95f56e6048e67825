"""Files that reports go to."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from inferry_client.console.output import complain, say
from inferry_client.load.errors import LoadError

# Where no file can be made beside the target: a folder that is read only, or a target that is mounted by itself.
_NOTHING_BESIDE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY}


def check_target(name: str | None) -> Path | None:
    """The file that a report shall be written to, tried before the test and not after it.

    Raises:
        LoadError: it cannot be written.
    """
    if name is None:
        return None
    path = Path(name).absolute()
    if not path.parent.is_dir():
        raise LoadError(f"{path.parent} is no folder, so {path.name} cannot be written there; create it first")
    if path.is_dir():
        raise LoadError(f"{path} is a folder; expected a file to write")
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise LoadError(f"{path} cannot be written: {error.strerror}") from error
    if not existed:
        path.unlink()  # nothing is left behind if the test fails
    return path


def write_target(path: Path, text: str) -> None:
    """Write a report: all of it, or none, and then an earlier one stays.

    Raises:
        LoadError: it cannot be written.
    """
    try:
        if path.is_file() or not path.exists():
            _replace(path.resolve(), text)
        else:  # a pipe or a device
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LoadError(f"{path} cannot be written: {error.strerror}") from error


def deliver(figures: str, reports: Sequence[tuple[Path | None, Callable[[], str]]]) -> bool:
    """Print the figures, then write every report that can be written; those that cannot are named on stderr.

    Args:
        figures: of the test.
        reports: where each goes, None for nowhere, and what makes its text.

    Returns:
        Whether all were written.

    Raises:
        OutputError: the figures could not be printed; the reports have been tried all the same.
        BrokenPipeError: whoever read the output has seen enough; the reports have been tried all the same.
    """
    written = True
    try:
        say(figures)
    finally:
        for path, render in reports:
            try:
                if path:
                    write_target(path, render())
            except LoadError as error:
                written = False  # guard: load-reports-all
                complain(f"error: {error}")
    return written


def _replace(path: Path, text: str) -> None:
    """Write beside the file and rename; a file that was there keeps its mode."""
    beside = path.with_name(f".inferry-load-{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        if path.exists():
            shutil.copymode(path, beside)
        beside.replace(path)
    except OSError as error:
        if error.errno not in _NOTHING_BESIDE:
            raise
        path.write_text(text, encoding="utf-8")
    finally:
        with suppress(OSError):
            beside.unlink()
