"""One job at a time in a folder: by a lock of the kernel, or by a lease where the file system has no locks.

A lease is a file with its owner's name that the owner writes again every few seconds. Whoever finds one that
changes waits for nobody and is refused; one that does not change within `STALE_S` belongs to a job that was killed.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inferry_client.batch.errors import JobError

RENEW_S = 3.0
STALE_S = 12.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def owned(folder: Path, *, wait: Callable[[float], object] | None = None) -> Iterator[None]:
    """The folder, which exists, for one job alone; a job that is killed owns it no longer.

    Args:
        folder: of the job.
        wait: lets so many seconds pass.

    Raises:
        JobError: another job is at work there.
    """
    with (folder / "_lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise in_use(folder, "") from error
        except OSError as error:  # as on mounted buckets
            if error.errno not in _NO_LOCKS:
                raise
        else:
            yield
            return
    with _leased(folder, wait or threading.Event().wait):
        yield


@contextmanager
def _leased(folder: Path, wait: Callable[[float], object]) -> Iterator[None]:
    path = folder / "_lease"
    owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)})
    _take(path, owner, wait)
    ended = threading.Event()

    def renew() -> None:
        count = 0
        while not ended.wait(RENEW_S):
            count += 1
            found = _read(path)
            if found and not found.startswith(owner):
                return  # somebody took it: they found it unchanged, so this process stood still
            with suppress(OSError):  # of a full disk, which may have room the next time
                path.write_text(f"{owner} {count}", encoding="utf-8")

    renewing = threading.Thread(target=renew, name="batch-lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        if _read(path).startswith(owner):
            path.unlink(missing_ok=True)


def _take(path: Path, owner: str, wait: Callable[[float], object]) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(owner)
    except FileExistsError:
        found = _read(path)
        if not is_dead(found):
            wait(STALE_S)
            if _read(path) != found:
                raise in_use(path.parent, f" ({found})") from None
        path.write_text(owner, encoding="utf-8")
    wait(RENEW_S / 10)  # of two that take it at the same moment, the later one has it
    if not _read(path).startswith(owner):
        raise in_use(path.parent, "")


def is_dead(lease: str) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    try:
        owner, _ = json.JSONDecoder().raw_decode(lease)
        if owner["host"] != socket.gethostname():
            return False
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False
    return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def in_use(folder: Path | str, who: str) -> JobError:
    """What a job is told that finds another at work."""
    return JobError(f"another job is writing into {folder}{who}; wait until it has ended, or choose another --out")
