"""Tensors as JSON has them, nested or flat, to raw bytes and back."""

import json
import math
import reprlib
import struct
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import DATATYPES, Datatype
from inferry_server.errors import DecodingError
from inferry_server.http.json_text import kind_of, written
from inferry_server.wire.elements import elements_to_bytes

_BF16, _BYTES, _UINT8 = DATATYPES["BF16"], DATATYPES["BYTES"], DATATYPES["UINT8"]
_EXPECTED = {"b": "true or false", "i": "whole numbers", "u": "whole numbers", "f": "numbers", "V": "numbers"}
_ACCEPTED: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}, "V": {int, float}}
_PACKED = "iuf"  # kinds of datatypes whose elements `struct` packs as they are
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}  # what `struct` calls whole numbers of so many bytes
_MOST_AXES = 64  # as many as NumPy's arrays have
_INT64_MIN, _UINT64_END = -(1 << 63), 1 << 64  # whole numbers that orjson reads as such are within
_HALF_BITS, _HALF_ULP, _QUIET_NAN = 16, 0x7FFF, 0x7FC0


def raw_from_json(data: Any, datatype: Datatype, *, tensor: str, has_truths: bool = True) -> bytes:
    """The raw contents of a tensor.

    Args:
        data: a list, nested in any regular way; row-major.
        datatype: that it has.
        tensor: named in errors.
        has_truths: whether there may be true or false in it.

    Raises:
        DecodingError: elements of another kind, or beyond what the datatype holds.
    """
    if not isinstance(data, list):
        raise DecodingError(f"input {tensor!r}: data must be a list, not {kind_of(data)}")
    elements = _flat(data, tensor, texts=datatype is _BYTES)
    if not has_truths and datatype.dtype.kind in _PACKED:  # guard: json-truths
        packed = _pack(elements, datatype)
        if packed is not None:
            return packed
    if datatype is _BYTES:
        return elements_to_bytes(_texts(elements, tensor))
    if datatype is _BF16:
        return _to_bfloat16(_numbers(elements, datatype, np.dtype(np.float32), tensor)).tobytes()
    return _numbers(elements, datatype, datatype.dtype, tensor).tobytes()


def _pack(elements: list[Any], datatype: Datatype) -> bytes | None:
    """Whole numbers, or numbers, in a quarter of the time; None where one of them is something else, or too large.

    Packing takes true and false for numbers, and nothing else that JSON has.
    """
    dtype = datatype.dtype
    try:
        if datatype is _UINT8:
            return bytes(elements)
        if dtype.kind != "f":
            code = _CODES[dtype.itemsize]
            return struct.pack(f"<{len(elements)}{code.upper() if dtype.kind == 'u' else code}", *elements)
        exact = np.frombuffer(struct.pack(f"<{len(elements)}d", *elements))
    except (struct.error, OverflowError, ValueError, TypeError):
        return None  # the long way tells which
    if dtype.itemsize == exact.itemsize:
        return exact.tobytes()
    with np.errstate(over="ignore"):
        array = exact.astype(dtype)
    return array.tobytes() if np.isfinite(array).all() else None


def _flat(data: list[Any], tensor: str, *, texts: bool) -> list[Any]:
    """The elements, row-major. A level of lists at a time: a call for each of 784 lists of one channel took 1 ms.

    Args:
        data: nested in any regular way.
        tensor: named in errors.
        texts: whether its elements may be texts; else one that is found is told later.
    """
    for _ in range(_MOST_AXES):
        if not data or type(data[0]) is not list:
            return data
        if len(data[0]) == 1 and not texts:  # guard: json-texts-nested
            try:
                data = [element for (element,) in data]  # in a quarter of the time; it takes a text for a list, too
            except (TypeError, ValueError):
                break
        elif set(map(type, data)) != {list} or len(set(map(len, data))) != 1:
            break
        else:
            data = list(chain.from_iterable(data))
    raise DecodingError(f"input {tensor!r}: data is nested irregularly or too deeply")


def json_from_raw(raw: bytes, datatype: Datatype, *, tensor: str) -> list[Any]:
    """The elements of a tensor, flat, as JSON has them.

    Args:
        raw: as in raw_output_contents.
        datatype: that it has.
        tensor: named in errors.

    Raises:
        DecodingError: a text that is not UTF-8.
    """
    if datatype is _BYTES:
        try:
            return [element.decode() for element in _elements(raw)]
        except UnicodeDecodeError as error:
            raise DecodingError(f"output {tensor!r} is not UTF-8; ask for it with binary_data: true") from error
    if datatype is _BF16:
        bits = np.frombuffer(raw, "<u2").astype(np.uint32) << _HALF_BITS
        return list(bits.view(np.float32).tolist())
    elements: list[Any] = np.frombuffer(raw, datatype.dtype).tolist()
    return elements


def elements_text(elements: list[Any]) -> str:
    """What `json_from_raw` gave, as a JSON list.

    What is not finite is written as Python's own writer has it, which its reader takes: NaN, Infinity.
    """
    text = written(elements)
    if b"null" in text:  # guard: json-not-finite
        return json.dumps(elements, separators=(",", ":"))
    return text.decode()


def _numbers(data: list[Any], datatype: Datatype, dtype: np.dtype[Any], tensor: str) -> NDArray[Any]:
    kinds = set(map(type, data))
    if list in kinds:
        raise DecodingError(f"input {tensor!r}: data is nested irregularly or too deeply")
    if not kinds <= _ACCEPTED[datatype.dtype.kind]:  # guard: json-kinds
        raise _of_another_kind(data, datatype, tensor)
    try:
        if dtype.kind != "f":
            return np.array(data, dtype)
        exact = np.array(data, np.float64)
    except OverflowError as error:
        if dtype.kind == "f":
            raise DecodingError(f"input {tensor!r}: a number is no {datatype.name}: {error}") from None
        limits = np.iinfo(dtype)
        raise _beyond(next(one for one in data if not limits.min <= one <= limits.max), datatype, tensor) from None
    with np.errstate(over="ignore"):
        array = exact.astype(dtype)
    lost = np.isfinite(exact) & ~np.isfinite(array)
    if lost.any():  # guard: json-range
        raise DecodingError(f"input {tensor!r}: {exact[lost].flat[0]} is no {datatype.name}")
    return array


def _of_another_kind(data: list[Any], datatype: Datatype, tensor: str) -> DecodingError:
    """What is told of data with elements that the datatype does not have.

    A whole number of more than 64 bits comes as a float, because orjson reads it as one.
    """
    kind = datatype.dtype.kind
    if kind in "iu" and set(map(type, data)) <= {int, float}:
        of_float = next(one for one in data if isinstance(one, float))
        if math.isfinite(of_float) and not _INT64_MIN < of_float < _UINT64_END:  # guard: json-whole-beyond
            return _beyond(of_float, datatype, tensor)
    other = next(one for one in data if type(one) not in _ACCEPTED[kind])
    came = reprlib.repr(other) if isinstance(other, float) else kind_of(other)
    return DecodingError(f"input {tensor!r}: data must be {_EXPECTED[kind]}, as {datatype.name} has them, not {came}")


def _beyond(value: float, datatype: Datatype, tensor: str) -> DecodingError:
    """What is told of a whole number that a datatype of whole numbers does not hold."""
    limits = np.iinfo(datatype.dtype.name)
    return DecodingError(
        f"input {tensor!r}: a number is no {datatype.name}: expected whole numbers from {limits.min} to {limits.max}, "
        f"not {reprlib.repr(value)}"
    )


def _texts(data: list[Any], tensor: str) -> NDArray[np.object_]:
    for text in data:
        if not isinstance(text, str):
            raise DecodingError(f"input {tensor!r}: data must be texts, as BYTES has them, not {kind_of(text)}")
    array = np.empty(len(data), dtype=object)
    try:
        array[:] = [text.encode() for text in data]
    except UnicodeEncodeError as error:
        raise DecodingError(f"input {tensor!r}: a text is no UTF-8: {error.reason}") from None
    return array


def _to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to the nearest, ties to even; what is not a number stays so."""
    bits = array.view(np.uint32)
    rounded = (bits + _HALF_ULP + ((bits >> _HALF_BITS) & 1)) >> _HALF_BITS
    return np.where(np.isnan(array), _QUIET_NAN, rounded).astype("<u2")


def _elements(raw: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(raw):
        start = position + 4
        position = start + int.from_bytes(raw[position:start], "little")
        yield raw[start:position]
