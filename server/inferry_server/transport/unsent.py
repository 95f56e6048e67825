"""How much of a stream may wait to be sent."""

_MOST_MESSAGES = 64
_MOST_BYTES = 4 << 20


def is_full(messages: int, nbytes: int) -> bool:
    """Whether so much is unsent that the server reads no further request before the client has read replies.

    Args:
        messages: that wait to be sent on one stream.
        nbytes: of them together.
    """
    return messages >= _MOST_MESSAGES or nbytes >= _MOST_BYTES  # guard: unsent-messages, unsent-bytes
