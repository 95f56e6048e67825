"""The operators of an ONNX file, read without the package `onnx` and without its weights."""

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from inferry_proto.protobuf_fields import contents, fields, fields_of_file

# Numbers of the fields, as onnx.proto has them.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 11, 12
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE = 1, 2, 1, 2
_FUNCTION_NODE = 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_INTEGER, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 3, 6, 11


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
    """The nodes of a file's graph and of its functions, in the file's order. Weights are skipped.

    Raises:
        ValueError: the file is no protobuf message.
        OSError: it cannot be read.
    """
    for number, content in _parts(model, (_GRAPH_NODE,), functions=True):
        if number == _GRAPH_NODE:
            yield _node(content)
            continue
        for inner, inner_content in contents(content):
            if inner == _FUNCTION_NODE:
                yield _node(inner_content, in_function=True)


def read_unranked(model: Path | bytes) -> frozenset[str]:
    """The names of inputs and outputs whose shape a file does not state, not even how many axes there are.

    Raises:
        ValueError: the file is no protobuf message.
        OSError: it cannot be read.
    """
    values = [_value(content) for _, content in _parts(model, (_GRAPH_INPUT, _GRAPH_OUTPUT))]
    return frozenset(name for name, has_shape in values if not has_shape)


def _parts(model: Path | bytes, wanted: Collection[int], *, functions: bool = False) -> Iterator[tuple[int, bytes]]:
    """Number and content of wanted fields of a file's graph, and of its functions if asked for, in the file's order.

    Everything else, above all weights, is skipped unread.
    """
    with io.BytesIO(model) if isinstance(model, bytes) else model.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(0)
        for number, size in fields_of_file(file, length):
            start = file.tell()
            if number == _MODEL_GRAPH:
                for inner, inner_size in fields_of_file(file, start + size):
                    if inner in wanted:
                        yield inner, file.read(inner_size)
                    else:
                        file.seek(inner_size, 1)
            elif number == _MODEL_FUNCTIONS and functions:
                yield number, file.read(size)
            file.seek(start + size)


def _value(data: bytes) -> tuple[str, bool]:
    """The name of an input or output, and whether its shape is stated."""
    name, has_shape = "", False
    for number, content in contents(data):
        if number == _VALUE_NAME:
            name = content.decode(errors="replace")
        elif number == _VALUE_TYPE:
            tensors = [tensor for inner, tensor in contents(content) if inner == _TYPE_TENSOR]
            has_shape |= any(inner == _TENSOR_SHAPE for tensor in tensors for inner, _ in contents(tensor))
    return name, has_shape


def _node(data: bytes, *, in_function: bool = False) -> Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_OP_TYPE: [""], _NODE_DOMAIN: [""]}
    has_graph, integer = False, None
    for number, content in contents(data):
        if number in texts:
            texts[number].append(content.decode(errors="replace"))
        elif number == _NODE_ATTRIBUTE:
            has_graph |= any(inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS) for inner, _ in contents(content))
            integer = next((one.value for one in fields(content) if one.number == _ATTRIBUTE_INTEGER), 0) or integer
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
