"""Tensors on the wire; in BYTES, each element is a 4-byte little-endian length and that many bytes."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")


def element_count(shape: Sequence[int]) -> int:
    """How many elements a shape has."""
    count = 1  # not numpy's prod: a hostile shape must not wrap around
    for axis in shape:
        count *= axis
    return count


def bytes_to_elements(data: bytes, count: int) -> NDArray[np.object_]:
    """The elements of a BYTES tensor, flat.

    Args:
        data: as in raw_input_contents.
        count: how many elements the shape takes.

    Raises:
        ValueError: more, fewer or broken elements.
    """
    elements: list[bytes] = []
    position = 0
    while position < len(data) and len(elements) < count:
        start = position + _LENGTH.size
        if start > len(data):
            raise ValueError(f"element {len(elements)} of BYTES is cut off within its length")
        position = start + _LENGTH.unpack_from(data, position)[0]
        if position > len(data):  # guard: request-element-bytes
            raise ValueError(f"element {len(elements)} of BYTES has {len(data) - start} of {position - start} bytes")
        elements.append(data[start:position])
    if len(elements) != count or position != len(data):
        raise ValueError(
            f"{len(data)} bytes hold {len(elements)} whole BYTES elements and {len(data) - position} bytes more; "
            f"expected {count} elements"
        )
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array


def elements_to_bytes(array: NDArray[Any]) -> bytes:
    """A tensor of `bytes` or `str` as raw_output_contents carries it, row-major."""
    parts: list[bytes] = []
    for element in array.ravel():
        data = element.encode() if isinstance(element, str) else bytes(element)
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)
