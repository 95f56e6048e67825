"""Weights that lie beside an ONNX file, put into the model's own bytes or handed over beside them.

An ONNX file names the files of its weights by relative paths. ONNX Runtime maps them, so whoever writes to such a file
changes what is computed, and whoever truncates it ends the process. Here the weights are read once. ONNX Runtime
takes large ones of the graph from memory; it does not take others (of subgraphs, functions and shapes) so, and those
become part of the model.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from inferry_proto.protobuf_fields import varint

# Numbers of the fields that lead to tensors, by message, as onnx.proto has them.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _FUNCTION, _SPARSE, _TENSOR = range(7)
_INSIDE: Mapping[int, Mapping[int, int]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}
_DIMS, _DATA_TYPE, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 9, 13, 14
_EXTERNAL, _ENUM_BITS = 1, 0xFFFFFFFF
_ELEMENT_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MOST_DIGITS = 19  # of an offset or length

_SMALL_BYTES = 1024  # shapes and the like are smaller; they must be in the model, or shapes cannot be told

ReadFile = Callable[[str], bytes]


class ExternalDataError(ValueError):
    """External data that is not as the model says."""


@dataclass
class OwnedModel:
    """A model that needs no file.

    Attributes:
        model: an ONNX model.
        files: contents of the files that it still names, by the names it has for them.
    """

    model: bytes
    files: dict[str, bytes] = field(default_factory=dict)


def own_external_data(model: bytes, read: ReadFile) -> OwnedModel:
    """Read every file that a model's tensors name.

    Args:
        model: the bytes of an ONNX file.
        read: the contents of a file that it names; called once for each name.

    Raises:
        ExternalDataError: a tensor states what its file does not have.
        Exception: as `read`.
    """
    if b"location" not in model:  # every tensor outside has this key
        return OwnedModel(model)
    return _Owner(read).own(model)


class _Owner:
    def __init__(self, read: ReadFile) -> None:
        self._read = read
        self._files: dict[str, bytes] = {}
        self._named: set[str] = set()  # by tensors that stay outside

    def own(self, model: bytes) -> OwnedModel:
        rewritten = self._message(memoryview(model), _MODEL, main=False)
        return OwnedModel(rewritten, {name: self._files[name] for name in self._named})

    def _message(self, data: memoryview, kind: int, *, main: bool) -> bytes:
        """A message with the tensors in it rewritten.

        Args:
            data: of the message.
            kind: which message it is.
            main: whether it is the model's own graph or, of a tensor, whether it stands in that: ONNX Runtime takes
                only those from memory.
        """
        if kind == _TENSOR:
            return self._tensor(data, may_stay=main)
        parts: list[bytes | memoryview] = []
        inside = _INSIDE[kind]
        for number, wire_type, start, content, end in _fields(data):
            child = inside.get(number) if wire_type == _DELIMITED else None
            if child is None:
                parts.append(data[start:end])
                continue
            is_main = (kind == _MODEL and child == _GRAPH) or (main and child == _TENSOR)
            inner = self._message(data[content:end], child, main=is_main)
            parts += (_varint(number << 3 | _DELIMITED), _varint(len(inner)), inner)
        return b"".join(parts)

    def _tensor(self, data: memoryview, *, may_stay: bool) -> bytes:
        entries: dict[str, str] = {}
        location = 0
        kept: list[memoryview] = []  # what a tensor with its data inside has too
        for number, wire_type, start, content, end in _fields(data):
            if number == _EXTERNAL_DATA and wire_type == _DELIMITED:
                key, value = _entry(data[content:end])
                entries[key] = value
            elif number == _DATA_LOCATION and wire_type == _VARINT:
                location = _read_varint(data, content)[0] & _ENUM_BITS  # as protobuf reads it
            else:
                kept.append(data[start:end])
        if location != _EXTERNAL:
            return bytes(data)
        name = entries.get("location", "")
        content_bytes = self._content(name, entries, data)
        if may_stay and len(content_bytes) >= _SMALL_BYTES:
            self._named.add(name)
            return bytes(data)
        head = _varint(_RAW_DATA << 3 | _DELIMITED) + _varint(len(content_bytes))
        return b"".join((*kept, head, content_bytes))

    def _content(self, name: str, entries: Mapping[str, str], tensor: memoryview) -> memoryview:
        if name not in self._files:
            self._files[name] = self._read(name)
        file = memoryview(self._files[name])
        offset, length = _number(entries.get("offset", "0")), entries.get("length")
        size = _tensor_bytes(tensor) if length is None else _number(length)
        if offset + size > len(file):
            raise ExternalDataError(f"{name!r} has {len(file)} bytes; a tensor is said to end at {offset + size}")
        return file[offset : offset + size]


def _tensor_bytes(tensor: memoryview) -> int:
    dims: list[int] = []
    data_type = 0
    for number, wire_type, _, content, end in _fields(tensor):
        if number == _DATA_TYPE and wire_type == _VARINT:
            data_type = _read_varint(tensor, content)[0]
        elif number == _DIMS:
            while content < end:
                size, content = _read_varint(tensor, content)
                dims.append(size)
    if data_type not in _ELEMENT_BITS:
        raise ExternalDataError(f"a tensor outside has the element type {data_type}, and states no length")
    return (math.prod(dims) * _ELEMENT_BITS[data_type] + 7) // 8


def _entry(data: memoryview) -> tuple[str, str]:
    texts = {number: bytes(data[content:end]).decode(errors="replace") for number, _, _, content, end in _fields(data)}
    return texts.get(1, ""), texts.get(2, "")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ExternalDataError(f"a tensor outside has the offset or length {text[:40]!r}; expected a whole number")
    return int(text)


def _fields(data: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Of each field: number, wire type, and where it, its content and the next field begin.

    Raises:
        ExternalDataError: this is no protobuf message.
    """
    position = 0
    while position < len(data):
        start = position
        tag, content = _read_varint(data, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _read_varint(data, content)
        elif wire_type == _DELIMITED:
            size, content = _read_varint(data, content)
            position = content + size
        elif wire_type in _FIXED_BYTES:
            position = content + _FIXED_BYTES[wire_type]
        else:
            raise ExternalDataError(f"no ONNX file: a field has wire type {wire_type}")
        if position > len(data):
            raise ExternalDataError("no ONNX file: a field is longer than its message")
        yield tag >> 3, wire_type, start, content, position


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    try:
        return varint(data, position)
    except ValueError as error:
        raise ExternalDataError(f"no ONNX file: {error}") from error


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
