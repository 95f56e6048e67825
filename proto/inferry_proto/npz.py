"""Arrays from an .npz file that anybody may have written: what it claims is checked before anything is allocated."""

import ast
import io
import math
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_ARRAYS = 10_000
_MOST_AXES = 32
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4}  # of the header's length, by format version
_LONGEST_HEADER = 10_000
_NUMBERS = re.compile(r"[<>|=]?([biuf])[0-9]{1,2}")


class NpzError(ValueError):
    """A file that is no .npz of numbers, or too large."""


def read_arrays(data: bytes, *, most_bytes: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and array of each member.

    Args:
        data: of the file.
        most_bytes: of all arrays together.

    Raises:
        NpzError: the file is damaged or encrypted, its arrays are larger, or hold something but numbers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive, most_bytes)
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                yield name, _array(name, archive.read(member))
    except NpzError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds, and say what is wrong
        raise NpzError(f"{type(error).__name__}: {error}") from error


def _check_members(archive: zipfile.ZipFile, most_bytes: int) -> None:
    members = archive.infolist()
    if len(members) > _MOST_ARRAYS:
        raise NpzError(f"it holds {len(members)} arrays; expected at most {_MOST_ARRAYS}")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise NpzError(f"{member.filename} is encrypted")
        if member.compress_type not in _METHODS:
            raise NpzError(
                f"{member.filename} is compressed by method {member.compress_type}; expected stored or deflate"
            )
    claimed = sum(member.file_size for member in members)
    if claimed > most_bytes:  # guard: golden-size
        raise NpzError(f"its arrays have {claimed} bytes; expected at most {most_bytes}")


def _array(name: str, data: bytes) -> NDArray[Any]:
    """An array of numbers from the bytes of an .npy file: a view of them, in C or Fortran order."""
    major = data[len(_MAGIC)] if data.startswith(_MAGIC) and len(data) > len(_MAGIC) else 0
    if major not in _LENGTH_BYTES:
        raise NpzError(f"{name!r} is no array in NumPy's format 1 or 2")
    start = len(_MAGIC) + 2 + _LENGTH_BYTES[major]
    length = int.from_bytes(data[len(_MAGIC) + 2 : start], "little")
    if length > _LONGEST_HEADER:
        raise NpzError(f"{name!r} has a header of {length} bytes; expected at most {_LONGEST_HEADER}")
    header = ast.literal_eval(data[start : start + length].decode("latin-1").strip())
    dtype, shape = _dtype(name, header["descr"]), _shape(name, header["shape"])
    content = memoryview(data)[start + length :]
    if math.prod(shape) * dtype.itemsize != len(content):  # guard: golden-header
        raise NpzError(f"{name!r} is said to be {dtype} {list(shape)}, and has {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if header["fortran_order"] else "C")


def _dtype(name: str, text: object) -> np.dtype[Any]:
    if not isinstance(text, str) or not _NUMBERS.fullmatch(text):
        raise NpzError(f"{name!r} holds {text!r}; expected numbers")
    return np.dtype(text)


def _shape(name: str, shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise NpzError(f"{name!r} has the shape {shape!r}; expected at most {_MOST_AXES} lengths")
    return shape
