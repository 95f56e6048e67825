"""Parsing requests."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferry_server.errors import DecodingError

M = TypeVar("M", bound=Message)


def parse(message_type: type[M], message: bytes) -> M:
    """A request from its bytes.

    Raises:
        DecodingError: they are another message, or none.
    """
    try:
        return message_type.FromString(message)
    except DecodeError as error:
        raise DecodingError(f"the request is not a valid {message_type.DESCRIPTOR.full_name}: {error}") from None
