"""The small constants of a graph, numbers and texts; its weights are not read.

A threshold, the id of padding or a word of a vocabulary stands in a small tensor or in an attribute.
"""

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferry_proto.protobuf_fields import Field, contents, fields, fields_of_file, varint

_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _FUNCTION_NODE, _NODE_ATTRIBUTE = 1, 5, 7, 5
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TEXT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 2, 3, 4, 5, 6
_ATTRIBUTE_FLOATS, _ATTRIBUTE_INTEGERS, _ATTRIBUTE_TEXTS = 7, 8, 9
_TENSOR_TYPE, _TENSOR_TEXTS, _TENSOR_RAW = 2, 6, 9
_PACKED_FLOATS, _PACKED_DOUBLES, _PACKED_INTEGERS = 4, 10, (5, 7, 11)
_RAW_DTYPES = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "u1", 10: "<f2", 11: "<f8", 12: "<u4",
    13: "<u8",
}  # fmt: skip
"""By ONNX's number of the element type."""

_LARGEST_BYTES = 4096  # of a tensor or node that is read; larger ones hold weights
_MOST_EACH = 64  # numbers of one tensor
_MOST = 256  # of each kind in all
_DEEPEST = 8  # graphs within graphs
_INTEGER_BITS, _FLOAT_BITS = 64, 32

Number = int | float


@dataclass(frozen=True)
class Constants:
    """What was found: finite numbers and texts, each once, in the file's order."""

    numbers: tuple[Number, ...] = ()
    texts: tuple[str, ...] = ()


def read_constants(model: Path | bytes) -> Constants:
    """The small constants of a file's graph, of the graphs within it, and of its functions.

    Raises:
        ValueError: the file is no protobuf message.
        OSError: it cannot be read.
    """
    numbers: dict[Number, None] = {}
    texts: dict[str, None] = {}
    with io.BytesIO(model) if isinstance(model, bytes) else model.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(0)
        for number, size in fields_of_file(file, length):
            end = file.tell() + size
            if number == _MODEL_GRAPH:
                for inner, inner_size in fields_of_file(file, end):
                    if inner in (_GRAPH_NODE, _GRAPH_INITIALIZER) and inner_size <= _LARGEST_BYTES:
                        _collect(_within_graph(inner, file.read(inner_size), 0), numbers, texts)
                    else:
                        file.seek(inner_size, 1)
            elif number == _MODEL_FUNCTIONS and size <= _LARGEST_BYTES:
                for inner, content in contents(file.read(size)):
                    if inner == _FUNCTION_NODE:
                        _collect(_of_node(content, 0), numbers, texts)
            file.seek(end)
    return Constants(tuple(numbers), tuple(texts))


def _collect(found: Iterable[Number | str], numbers: dict[Number, None], texts: dict[str, None]) -> None:
    for one in found:
        if isinstance(one, str):
            if len(texts) < _MOST:
                texts[one] = None
        elif len(numbers) < _MOST and math.isfinite(one):
            numbers[one] = None


def _within_graph(number: int, content: bytes, depth: int) -> Iterator[Number | str]:
    if number == _GRAPH_INITIALIZER:
        yield from _of_tensor(content)
    elif number == _GRAPH_NODE:
        yield from _of_node(content, depth)


def _of_node(data: bytes, depth: int) -> Iterator[Number | str]:
    for number, content in contents(data):
        if number == _NODE_ATTRIBUTE:
            yield from _of_attribute(content, depth)


def _of_attribute(data: bytes, depth: int) -> Iterator[Number | str]:
    for one in fields(data):
        content = one.content or b""
        if one.number == _ATTRIBUTE_TENSOR:
            yield from _of_tensor(content)
        elif one.number == _ATTRIBUTE_GRAPH and depth < _DEEPEST:
            for inner, inner_content in contents(content):
                yield from _within_graph(inner, inner_content, depth + 1)
        elif one.number in (_ATTRIBUTE_TEXT, _ATTRIBUTE_TEXTS):
            yield from _text(content)
        elif one.number in (_ATTRIBUTE_FLOAT, _ATTRIBUTE_FLOATS):
            yield from _floats(one)
        elif one.number in (_ATTRIBUTE_INTEGER, _ATTRIBUTE_INTEGERS):
            yield from _integers(one)


def _of_tensor(data: bytes) -> Iterator[Number | str]:
    found = list(fields(data))
    element_type = next((one.value for one in found if one.number == _TENSOR_TYPE), 0)
    for one in found:
        if one.number == _TENSOR_TEXTS:
            yield from _text(one.content or b"")
        elif one.number == _PACKED_FLOATS:
            yield from _floats(one)
        elif one.number in _PACKED_INTEGERS:
            yield from _integers(one)
        elif one.number == _PACKED_DOUBLES:
            yield from _raw(one.content or b"", "<f8")
        elif one.number == _TENSOR_RAW and element_type in _RAW_DTYPES:
            yield from _raw(one.content or b"", _RAW_DTYPES[element_type])


def _raw(content: bytes, dtype: str) -> Iterator[Number]:
    """The numbers of a tensor's bytes, if they are few."""
    size = np.dtype(dtype).itemsize
    if len(content) <= size * _MOST_EACH and len(content) % size == 0:
        yield from np.frombuffer(content, dtype).tolist()


def _floats(one: Field) -> Iterator[Number]:
    if one.content is not None:
        yield from _raw(one.content, "<f4")
    elif one.value >> _FLOAT_BITS == 0:  # larger ones are no floats, and ONNX Runtime ignores them
        yield from _raw(one.value.to_bytes(4, "little"), "<f4")


def _integers(one: Field) -> Iterator[int]:
    yield from map(_signed, [one.value] if one.content is None else _varints(one.content))


def _varints(content: bytes) -> Iterator[int]:
    position = 0
    for _ in range(_MOST_EACH):
        if position >= len(content):
            return
        value, position = varint(content, position)
        yield value


def _signed(bits: int) -> int:
    return bits - (1 << _INTEGER_BITS) if bits >> (_INTEGER_BITS - 1) else bits


def _text(content: bytes) -> Iterator[str]:
    try:
        yield content.decode()
    except UnicodeDecodeError:
        return
