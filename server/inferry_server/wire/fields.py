"""How many fields a message has, counted before it is parsed.

A field takes two bytes on the wire, as little as a byte compressed five hundred of them, and some forty times as
much memory once it is parsed. So what parsing costs is bounded by the number of a message's fields, not by its size.
"""

from collections.abc import Mapping
from typing import Any, Union

from google.protobuf.descriptor import FieldDescriptor

from inferry_server.errors import TooManyFieldsError

Descriptor = Any  # of protobuf; its types differ between its implementations
Plan = dict[int, Union["Plan", None]]
"""Of a message: by number, the plan of the fields that are messages; None for packed numbers."""

_MORE = 0x80
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_GROUPS = (3, 4)  # of fields that a parser passes over
_VARINT_MOST_BYTES = 10
_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


class FieldLimit:
    """Refuses messages with too many fields. Thread-safe.

    Every field of every message inside counts, and of packed numbers every byte: each may be one. Numbers of the type
    that holds data are not counted: packed, they take as much room parsed as their size says.

    Args:
        most: fields that a message may have.
        types: of the requests, by the path of their method; others are counted without looking inside their fields.
        data_types: names of messages whose packed numbers are data.
    """

    def __init__(self, most: int, types: Mapping[str, Descriptor], *, data_types: frozenset[str]) -> None:
        self.most = most
        self._data_types = data_types
        known: dict[str, Plan] = {}
        self._plans = {path: self._plan(descriptor, known) for path, descriptor in types.items()}

    def check(self, path: str, message: bytes | memoryview) -> None:
        """See whether a message may be parsed. One of at most `most` bytes may: no field is shorter than a byte.

        Raises:
            TooManyFieldsError: it may not.
        """
        if len(message) > self.most and has_more_fields(
            message, self._plans.get(path, {}), self.most
        ):  # guard: fields-counted
            raise TooManyFieldsError(limit=self.most)

    def _plan(self, descriptor: Descriptor, known: dict[str, Plan]) -> Plan:
        plan = known.get(descriptor.full_name)
        if plan is None:
            plan = known[descriptor.full_name] = {}
            for field in descriptor.fields:
                if field.message_type is not None:
                    plan[field.number] = self._plan(field.message_type, known)
                elif field.type not in _TEXTS and descriptor.full_name not in self._data_types:
                    plan[field.number] = None
        return plan


def has_more_fields(message: bytes | memoryview, plan: Plan, most: int) -> bool:
    """Whether a message has more fields than so many, those inside of its fields included.

    What is damaged ends the message that it is in, as it does for a parser.
    """
    count = 0
    inside = [(0, len(message), plan)]
    while inside:
        position, end, plan = inside.pop()
        try:
            while position < end:
                count += 1
                if count > most:
                    return True
                tag, position = _varint(message, position)
                wire_type = tag & 7
                if wire_type == _LENGTH_DELIMITED:
                    size, position = _varint(message, position)
                    stop = position + size
                    if stop > end:
                        break
                    number = tag >> 3
                    if number in plan:
                        inner = plan[number]
                        if inner is None:
                            count += size  # guard: fields-packed
                        else:
                            inside.append((position, stop, inner))  # guard: fields-inside
                    position = stop
                elif wire_type == _VARINT:
                    _, position = _varint(message, position)
                elif wire_type in (_FIXED32, _FIXED64):
                    position += 4 if wire_type == _FIXED32 else 8
                elif wire_type not in _GROUPS:
                    break
        except IndexError:  # the message ends in the middle of a number
            continue
    return count > most


def _varint(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """A number, and where it ends. Raises IndexError where it does not."""
    byte = message[position]
    if byte < _MORE:
        return byte, position + 1
    value = byte & ~_MORE
    for place in range(1, _VARINT_MOST_BYTES):
        byte = message[position + place]
        value |= (byte & ~_MORE) << 7 * place
        if byte < _MORE:
            return value, position + place + 1
    raise IndexError
