"""IDX, the file format of MNIST and its kin: a magic number, big-endian counts, then bytes."""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.errors import DatasetError

IMAGES_MAGIC = 0x00000803  # unsigned bytes, three axes
LABELS_MAGIC = 0x00000801  # unsigned bytes, one axis


def read_idx_images(path: Path) -> UInt8Array:
    """The images of a gzipped IDX file: `(N, H, W)` uint8, 0-255.

    Raises:
        DatasetError: not gzip, another kind of file, or fewer or more bytes than its header says.
    """
    return _read(path, magic=IMAGES_MAGIC, kind="images")


def read_idx_labels(path: Path) -> UInt8Array:
    """The labels of a gzipped IDX file: `(N,)` uint8.

    Raises:
        DatasetError: not gzip, another kind of file, or fewer or more bytes than its header says.
    """
    return _read(path, magic=LABELS_MAGIC, kind="labels")


def file_md5(path: Path) -> str:
    """The checksum by which MNIST's files are known; it guards against damage, not against malice.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def describe_start(path: Path) -> str:
    """What a file looks like from its first bytes, for messages; empty where that says nothing."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start[:1] == b"<":
        return f"it begins with {start[:15]!r}, so it looks like a web page saved in its place"
    return "" if start.startswith(b"\x1f\x8b") else f"it begins with {start[:8]!r}, which is not gzip"


def _read(path: Path, *, magic: int, kind: str) -> UInt8Array:
    data = _decompress(path, kind)
    axes = magic & 0xFF
    header_bytes = 4 * (1 + axes)
    if len(data) < header_bytes:
        raise DatasetError(f"{path} is truncated: expected an IDX header of {header_bytes} bytes, {len(data)} came")
    found, *shape = struct.unpack(f">{1 + axes}I", data[:header_bytes])
    if found != magic:
        raise DatasetError(
            f"{path} is not an IDX file of {kind}: expected magic 0x{magic:08x}, 0x{found:08x} came; download it again"
        )
    expected, actual = int(np.prod(shape, dtype=object)), len(data) - header_bytes
    if 0 in shape or actual != expected:
        state = "is truncated" if actual < expected else "does not match its header"
        raise DatasetError(
            f"{path} {state}: expected {expected} bytes of {kind} for the shape {tuple(shape)} in its header, "
            f"{actual} came; download it again"
        )
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape)


def _decompress(path: Path, kind: str) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except EOFError as error:
        raise DatasetError(f"{path} is truncated: expected a whole gzip file of {kind}; download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        reason = describe_start(path) or str(error)
        raise DatasetError(f"{path} is not a gzip file of {kind}: {reason}; download it again") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
