"""Parsing requests."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferry_server.errors import DecodingError

M = TypeVar("M", bound=Message)


def parse(message_type: type[M], message: bytes | memoryview) -> M:
    """A request from its bytes, or from a view of them, which is copied.

    Raises:
        DecodingError: they are another message, or none.
    """
    try:
        return message_type.FromString(bytes(message))
    except DecodeError as error:
        raise DecodingError(f"the request is not a valid {message_type.DESCRIPTOR.full_name}: {error}") from None
