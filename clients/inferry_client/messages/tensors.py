"""Tensors as the Open Inference Protocol carries them: raw bytes, and the reverse.

Little-endian and row-major. An element of BYTES is its length in four bytes and itself.
"""

import math
import struct
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import DATATYPES, Datatype, datatype_of
from inferry_proto.open_inference_pb2 import InferTensorContents

_LENGTH = struct.Struct("<I")
_BYTES = 2  # protobuf's wire type of what has a length


def tensor_datatype(array: NDArray[Any]) -> Datatype:
    """The datatype an array is sent as; strings of any kind are sent as BYTES.

    Raises:
        ValueError: the protocol has none for its dtype.
    """
    return sent_as(array.dtype)[0]


def encode_tensor(array: NDArray[Any]) -> bytes:
    """An array's elements as raw contents.

    Raises:
        ValueError: see `wire_tensor`.
    """
    return wire_tensor(array)[1]


def wire_tensor(array: NDArray[Any]) -> tuple[str, bytes]:
    """The name of the datatype an array is sent as, and its elements as raw contents.

    Raises:
        ValueError: no datatype for its dtype, an element of BYTES is neither bytes nor str, or places are masked.
    """
    datatype, as_it_is = sent_as(array.dtype)
    if as_it_is and type(array) is np.ndarray:
        return datatype.name, array.tobytes()
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError("it is a masked array; give an array with a value in every place (`filled`)")  # noqa: TRY004
    if datatype.name == "BYTES":
        return datatype.name, b"".join(_encode_element(element) for element in array.ravel().tolist())
    return datatype.name, array.astype(datatype.dtype).tobytes()


def decode_tensor(data: bytes, datatype_name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array that raw contents stand for; numbers are a read-only view of them.

    Raises:
        ValueError: an unknown datatype, or another number of bytes than the shape needs.
    """
    dtype, expected = _layout(datatype_name, shape)
    if expected is None:
        return _object_array(_decode_elements(data, math.prod(shape)), shape)
    if len(data) != expected:
        raise ValueError(f"{len(data)} bytes came; {datatype_name} of shape {list(shape)} has {expected}")
    return np.ndarray(shape, dtype, data)  # a view, which is read-only as the bytes are


def decode_contents(contents: InferTensorContents, datatype_name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array that typed contents stand for; some servers answer with those.

    Raises:
        ValueError: an unknown datatype, or another number of elements than the shape has.
    """
    datatype = _datatype(datatype_name)
    if datatype.contents_field is None:
        raise ValueError(f"{datatype_name} has no typed contents; expected raw ones")
    elements = list(getattr(contents, datatype.contents_field))
    if len(elements) != math.prod(shape):
        raise ValueError(f"{len(elements)} elements came; shape {list(shape)} has {math.prod(shape)}")
    if datatype.name == "BYTES":
        return _object_array(elements, shape)
    return np.array(elements, dtype=datatype.dtype).reshape(shape)


@lru_cache(maxsize=256)  # messages of a model look alike
def before_contents(field: int, size: int) -> bytes:
    """What stands before raw contents in a serialized message.

    Args:
        field: the number of the message's field of contents.
        size: of the contents in bytes.
    """
    written = bytearray([field << 3 | _BYTES])
    while size > 127:
        written.append(size & 127 | 128)
        size >>= 7
    written.append(size)
    return bytes(written)


@lru_cache(maxsize=64)  # datetimes have dtypes without number
def sent_as(dtype: "np.dtype[Any]") -> tuple[Datatype, bool]:
    """The datatype that arrays of a dtype are sent as, and whether their elements lie in memory as they are sent.

    Raises:
        ValueError: the protocol has none for it.
    """
    if dtype.kind in "OSU":
        return DATATYPES["BYTES"], False
    datatype = datatype_of(dtype.newbyteorder("<"))
    return datatype, datatype.dtype == dtype


@lru_cache(maxsize=256)  # replies of a model look alike
def _layout(datatype_name: str, shape: tuple[int, ...]) -> "tuple[np.dtype[Any], int | None]":
    """The dtype, and how many bytes a tensor has; None for BYTES, whose elements have each their own."""
    datatype = _datatype(datatype_name)
    size = None if datatype.name == "BYTES" else math.prod(shape) * datatype.dtype.itemsize
    return datatype.dtype, size


def _datatype(name: str) -> Datatype:
    if name not in DATATYPES:
        raise ValueError(f"datatype {name!r} is not known here; known are {', '.join(DATATYPES)}")
    return DATATYPES[name]


def _encode_element(element: object) -> bytes:
    if isinstance(element, str):
        element = element.encode()
    if not isinstance(element, bytes):
        raise ValueError(f"an element of BYTES is a {type(element).__name__}; expected bytes or str")  # noqa: TRY004
    return _LENGTH.pack(len(element)) + element


def _decode_elements(data: bytes, count: int) -> list[bytes]:
    elements: list[bytes] = []
    offset = 0
    while offset < len(data):
        start = offset + _LENGTH.size
        if start > len(data):
            raise ValueError(f"BYTES end inside the length of element {len(elements)}")
        offset = start + _LENGTH.unpack_from(data, offset)[0]
        if offset > len(data):
            raise ValueError(f"BYTES end inside element {len(elements)}")
        elements.append(data[start:offset])
    if len(elements) != count:
        raise ValueError(f"{len(elements)} elements of BYTES came; expected {count}")
    return elements


def _object_array(elements: list[bytes], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)
