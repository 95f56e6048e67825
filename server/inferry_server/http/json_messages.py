"""Messages as JSON, with the field names of the protocol and numbers as numbers."""

from typing import Any

from google.protobuf.message import Message


def to_json(message: Message) -> dict[str, Any]:
    """The fields of a message; scalars that are not set too, as clients of the REST half expect, messages are not."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            fields[field.name] = _map(field, value) if _is_map(field) else [_single(field, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            fields[field.name] = _single(field, value)
    return fields


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _map(field: Any, value: Any) -> dict[str, Any]:
    entry = field.message_type.fields_by_name["value"]
    return {str(key): _single(entry, value[key]) for key in sorted(value)}


def _single(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
