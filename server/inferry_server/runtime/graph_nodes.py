"""The operators of an ONNX file, read without the package `onnx` and without its weights."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Numbers of the fields, as onnx.proto has them.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 11, 12
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE = 1, 2, 1, 2
_FUNCTION_NODE = 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_INTEGER, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 3, 6, 11

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_MOST_BYTES = 10


@dataclass(frozen=True)
class Node:
    """One operator of a graph.

    Attributes:
        op_type: its name in its domain.
        domain: empty for ONNX's own operators.
        inputs: names of tensors; empty for one that is left out.
        outputs: names of tensors.
        has_graph: whether an attribute of it is a graph, as of Loop, If and Scan.
        casts_to: of Cast, ONNX's number of the element type; None of all others.
        in_function: whether it stands in a function of the file, whose tensors have names of their own.
    """

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    has_graph: bool
    in_function: bool = False
    casts_to: int | None = None


def read_nodes(model: Path | bytes) -> Iterator[Node]:
    """The nodes of a file's graph and of its functions, in the file's order. Weights are passed over.

    Raises:
        ValueError: the file is no protobuf message.
        OSError: it cannot be read.
    """
    with io.BytesIO(model) if isinstance(model, bytes) else model.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(0)
        for number, size in _fields_of_file(file, length):
            start = file.tell()
            if number == _MODEL_GRAPH:
                for inner, inner_size in _fields_of_file(file, start + size):
                    if inner == _GRAPH_NODE:
                        yield _node(file.read(inner_size))
                    else:
                        file.seek(inner_size, 1)
            elif number == _MODEL_FUNCTIONS:
                for inner, content in _fields(file.read(size)):
                    if inner == _FUNCTION_NODE:
                        yield _node(content, in_function=True)
            file.seek(start + size)


def read_unranked(model: Path | bytes) -> frozenset[str]:
    """The names of inputs and outputs whose shape a file does not state, not even how many axes there are.

    Raises:
        ValueError: the file is no protobuf message.
        OSError: it cannot be read.
    """
    unranked: set[str] = set()
    with io.BytesIO(model) if isinstance(model, bytes) else model.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(0)
        for number, size in _fields_of_file(file, length):
            start = file.tell()
            if number == _MODEL_GRAPH:
                for inner, inner_size in _fields_of_file(file, start + size):
                    if inner in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                        name, has_shape = _value(file.read(inner_size))
                        unranked |= set() if has_shape else {name}
                    else:
                        file.seek(inner_size, 1)
            file.seek(start + size)
    return frozenset(unranked)


def _value(data: bytes) -> tuple[str, bool]:
    """The name of an input or output, and whether its shape is stated."""
    name, has_shape = "", False
    for number, content in _fields(data):
        if number == _VALUE_NAME:
            name = content.decode(errors="replace")
        elif number == _VALUE_TYPE:
            tensors = [tensor for inner, tensor in _fields(content) if inner == _TYPE_TENSOR]
            has_shape |= any(inner == _TENSOR_SHAPE for tensor in tensors for inner, _ in _fields(tensor))
    return name, has_shape


def _node(data: bytes, *, in_function: bool = False) -> Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_OP_TYPE: [""], _NODE_DOMAIN: [""]}
    has_graph, integer = False, None
    for number, content in _fields(data):
        if number in texts:
            texts[number].append(content.decode(errors="replace"))
        elif number == _NODE_ATTRIBUTE:
            has_graph |= any(inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS) for inner, _ in _fields(content))
            integer = _integer(content, _ATTRIBUTE_INTEGER) or integer
    domain = texts[_NODE_DOMAIN][-1]
    return Node(
        op_type=texts[_NODE_OP_TYPE][-1],
        domain="" if domain == "ai.onnx" else domain,
        inputs=tuple(texts[_NODE_INPUT]),
        outputs=tuple(texts[_NODE_OUTPUT]),
        has_graph=has_graph,
        in_function=in_function,
        casts_to=integer if texts[_NODE_OP_TYPE][-1] == "Cast" else None,
    )


def _integer(data: bytes, wanted: int) -> int | None:
    """A number in a message; None where it is not there."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag & 7 == _VARINT:
            value, position = _varint(data, position)
            if tag >> 3 == wanted:
                return value
        elif tag & 7 == _LENGTH_DELIMITED:
            size, position = _varint(data, position)
            position += size
        else:
            position += _fixed_bytes(tag)
    return None


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field of a message that has a content; numbers are passed over."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        size = 0
        if tag & 7 == _LENGTH_DELIMITED:
            size, position = _varint(data, position)
            if position + size > len(data):
                raise ValueError("a field is longer than its message")
            yield tag >> 3, data[position : position + size]
        elif tag & 7 == _VARINT:
            _, position = _varint(data, position)
        else:
            size = _fixed_bytes(tag)
        position += size


def _fields_of_file(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and length of each field that has a content, the file standing at its beginning.

    Whoever is given one leaves the file standing at its end.
    """
    while file.tell() < end:
        tag = _varint_of_file(file)
        if tag & 7 == _LENGTH_DELIMITED:
            size = _varint_of_file(file)
            if file.tell() + size > end:
                raise ValueError("a field is longer than its message")
            yield tag >> 3, size
        elif tag & 7 == _VARINT:
            _varint_of_file(file)
        else:
            file.seek(_fixed_bytes(tag), 1)


def _fixed_bytes(tag: int) -> int:
    size = _FIXED_BYTES.get(tag & 7)
    if size is None:
        raise ValueError(f"a field of wire type {tag & 7}")
    return size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[position : position + _VARINT_MOST_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 1
    raise ValueError("a number does not end")


def _varint_of_file(file: BinaryIO) -> int:
    value = 0
    for place in range(_VARINT_MOST_BYTES):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            return value
    raise ValueError("a number does not end")
