"""One RPC as a handler sees it, whatever transport carries it.

Handlers are callbacks: they get a call and bytes, return at once, and answer when they can, from
any thread. So a transport needs no thread or task for a call that waits.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from inferry_server.rpc.statuses import Status, status_of
from inferry_server.trace import RequestTrace

Message = bytes | memoryview
"""A request. Handlers get bytes; those that were registered as taking views may get what views memory that others own,
and that is free again once nothing views it. Neither is written to."""


class Outcome(Protocol):
    """Where the outcome of one request goes. Exactly one of the two is called, once, from any thread."""

    def reply(self, message: bytes) -> None:
        """The request was computed: its response message, and status OK."""

    def fail(self, error: Exception) -> None:
        """The request was not computed: the status of this error."""


class Call(Outcome, Protocol):
    """One unary RPC. Thread-safe; the first of `reply`, `fail` and `abort` ends it, what follows is ignored.

    Attributes:
        method: the path, `/package.Service/Method`.
        metadata: as the client sent it.
        deadline: on the monotonic clock, in seconds; None where the client set none.
        waited_s: how long it waited to be read, as far as the transport can tell.
        trace: from the call's account; None where it is not sampled.
    """

    method: str
    metadata: Sequence[tuple[str, str | bytes]]
    deadline: float | None
    waited_s: float
    trace: RequestTrace | None

    def abort(self, status: Status) -> None:
        """End with a status other than OK."""

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back once if the client goes away or its deadline passes before the reply.

        Called at once if that happened already.
        """


class StreamCall(Protocol):
    """One streaming RPC. Thread-safe; `finish` or `abort` ends it, what follows is ignored."""

    method: str
    metadata: Sequence[tuple[str, str | bytes]]
    deadline: float | None

    def pause_reading(self) -> None:
        """Read no further request for now, so that the client's sending stops by flow control.

        One that was read already may still arrive.
        """

    def resume_reading(self) -> None:
        """Read on."""

    def send(self, message: bytes) -> None:
        """Send one response; they arrive in the order they are sent."""

    def finish(self) -> None:
        """End with status OK, after what was sent."""

    def abort(self, status: Status) -> None:
        """End with a status other than OK."""

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """As for `Call`."""


class StreamReceiver(Protocol):
    """What a handler of a streaming RPC gives the transport to call, message by message."""

    def on_message(self, message: Any) -> None:
        """The client sent a request: a `Message`, bytes for those that take no views."""

    def on_half_close(self) -> None:
        """The client will send no more."""

    def on_drain(self) -> None:
        """The server is going away: answer what has come, then end the call. Nothing more will come."""


Cancel = Callable[[], object]

UnaryHandler = Callable[[Call, Any], Cancel | None]
"""Gets a call with its request, a `Message`, bytes if it takes no views; returns what forgets the request when its
client goes away, if that spares work."""

Arrived = tuple[Call, bytes]
"""A unary call and its request."""

AlikeHandler = Callable[[Sequence[Arrived]], None]
"""Gets calls that came together, and sees to all that a `UnaryHandler`'s caller does: it raises nothing, and what
becomes of one call is nothing to the others."""

StreamHandler = Callable[[StreamCall], StreamReceiver]


def fail(call: Call | StreamCall, error: Exception) -> None:
    """End a call with the status of an error."""
    call.abort(status_of(error))
