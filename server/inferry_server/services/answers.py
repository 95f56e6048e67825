"""Where the outcome of one request goes."""

from typing import Protocol

from inferry_server.rpc.call import Call, fail


class Answer(Protocol):
    """Exactly one of the two is called, once, from any thread."""

    def respond(self, response: bytes) -> None:
        """It was computed: the response message."""

    def fail(self, error: Exception) -> None:
        """It was not."""


class UnaryAnswer:
    """The one response of a unary call."""

    __slots__ = ("_call", "respond")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.respond = call.reply

    def fail(self, error: Exception) -> None:
        """End the call with the error's status."""
        fail(self._call, error)
