"""Reading files that anybody may have put there: regular ones, and whole ones of bounded size."""

import codecs
import errno
import os
import stat
from pathlib import Path
from typing import IO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}

_MOST_AT_ONCE = 0x7FFFF000  # Linux reads no more in one call

SMALL_FILE_BYTES = 64 << 20
"""More than any manifest, label file or configuration has."""


def read_file(path: Path | str, *, most_bytes: int = SMALL_FILE_BYTES) -> bytes:
    """All bytes of a regular file. Never waits for a writer, and allocates no more than the file has.

    Raises:
        OSError: it is missing, may not be read, is no regular file, is larger, changed while it was read, or its name
            (one that a manifest says) is none that a file can have.
    """
    descriptor, status = _open_regular(os.fspath(path))
    try:
        if status.st_size > most_bytes:  # guard: files-size
            raise OSError(errno.EFBIG, f"it has {status.st_size} bytes; expected at most {most_bytes}", os.fspath(path))
        data = _read_up_to(descriptor, status.st_size + 1)
        written = os.fstat(descriptor).st_mtime_ns != status.st_mtime_ns  # in place: its size need not tell
    finally:
        os.close(descriptor)
    if len(data) != status.st_size or written:  # guard: files-unchanged
        raise OSError(errno.EBUSY, f"it changed while it was read, from {status.st_size} bytes", os.fspath(path))
    return data


def open_file(path: Path | str) -> IO[bytes]:
    """A regular file, to be read a piece at a time; its reader bounds the pieces. Never waits for a writer.

    Raises:
        OSError: it is missing, may not be read, is no regular file, or its name is none that a file can have.
    """
    descriptor, _ = _open_regular(os.fspath(path))
    return os.fdopen(descriptor, "rb")


def read_text(path: Path, *, most_bytes: int = SMALL_FILE_BYTES) -> str:
    """The text of a file in UTF-8, without its byte order mark; its lines end with a newline alone.

    Raises:
        OSError: as `read_file`.
        UnicodeDecodeError: it is no UTF-8; its reason says what to do.
    """
    data = read_file(path, most_bytes=most_bytes)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        error.reason += f"; {'it is UTF-16' if is_utf16 else 'expected UTF-8'}: save the file as UTF-8"
        raise
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _open_regular(name: str) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file, and what it is."""
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 - read by the thousand; before it is opened: to open a device may
        # do something
    except ValueError as error:  # guard: files-name
        raise OSError(errno.EINVAL, f"its name is none that a file can have ({error})", name) from None
    _require_regular(name, mode)
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _require_regular(name, status.st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def _read_up_to(descriptor: int, size: int) -> bytes:
    """Bytes until the file ends, so many at most; a read may give fewer than there are."""
    data = os.read(descriptor, min(size, _MOST_AT_ONCE))
    if len(data) == size or not data:
        return data
    pieces, left = [data], size - len(data)
    while left and (piece := os.read(descriptor, min(left, _MOST_AT_ONCE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _require_regular(name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):  # guard: files-regular
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise OSError(errno.EINVAL, f"it is {kind}; expected a regular file", name)
