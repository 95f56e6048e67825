"""A call that comes over HTTP without ASGI: the head of its request, its connection, and the call itself."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.http.infer_request import BinaryWanted
from inferry_server.rpc.router import Account, EndingCall
from inferry_server.rpc.statuses import OK, Status
from inferry_server.security.policy import Policy
from inferry_server.trace import Metadata

INFER = OPEN_INFERENCE["ModelInfer"].path

RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of requests with the same method, path and headers, but for the length of the body.

    Attributes:
        url: of them.
        headers: of one of them.
        length_at: where the length stands in them.
        model: from the path.
        version: from the path; empty for none.
        stated: `Inference-Header-Content-Length`; None for none.
        metadata: the headers but for the length, for the handler.
    """

    url: bytes
    headers: RawHeaders
    length_at: int
    model: str
    version: str
    stated: str | None
    metadata: Metadata

    def fits(self, url: bytes, headers: RawHeaders) -> bool:
        """Whether another request has the same."""
        at, known = self.length_at, self.headers
        return (
            url == self.url
            and len(headers) == len(known)
            and headers[at][0] == b"content-length"
            and headers[:at] == known[:at]
            and headers[at + 1 :] == known[at + 1 :]
        )


class Connection(Protocol):
    """What carries a call: uvicorn's protocol, as `http/protocol.py` has it. For the loop's thread.

    Attributes:
        loop: of the server; its clock is the monotonic one.
        client: who asks; None where that is not known.
        app_state: what is known of the connection.
        now: when the latest bytes came, on the loop's clock.
    """

    loop: asyncio.AbstractEventLoop
    client: tuple[str, int] | None
    app_state: dict[str, Any]
    now: float

    def reply(self, code: int, lines: bytes, body: bytes) -> None:
        """Send the whole reply to the call that it carries.

        Args:
            code: of the status.
            lines: headers, as they are sent; without the body's length.
            body: of the reply.
        """


class _Deaf:
    """An event that nobody waits for."""

    def set(self) -> None:
        """Nobody is woken."""


class DirectCall(EndingCall):
    """One unary call that HTTP brought, where uvicorn's protocol keeps its cycle of request and response.

    Any thread may call `reply`, `fail` and `abort`; the loop's thread everything else.

    Args:
        head: of its request.
        connection: that brought it.
        account: told once how it ended.
        replied: takes the outcome to the loop's thread.

    Attributes:
        head: of its request.
        connection: that brought it.
        pieces: of the body, as they came.
        wanted: how its outputs are to be written; known when the request was read.
        policy: that let its caller in, before the body came; None where everybody may infer.
        began_at: when its head had come, in monotonic seconds.
        came_at: when it had come whole, in the same seconds.
        disconnected: whether the client has gone. uvicorn sets it.
        response_complete: whether it has its reply.
        keep_alive: whether the connection goes on after it. uvicorn clears it where the server ends.
        message_event: uvicorn sets it when the client has gone.
    """

    message_event = _Deaf()

    def __init__(
        self,
        head: Head,
        connection: Connection,
        account: Account,
        replied: Callable[["DirectCall", Status, bytes], None],
    ) -> None:
        super().__init__(INFER, head.metadata, None, account)
        self.head = head
        self.connection = connection
        self.pieces: list[bytes] = []
        self.wanted: BinaryWanted | None = None
        self.policy: Policy | None = None
        self.began_at = self.came_at = 0.0
        self.disconnected = self.response_complete = False
        self.keep_alive = True
        self._replied = replied

    def reply(self, message: bytes) -> None:
        """Answer with a message."""
        if self._end(OK):
            self._replied(self, OK, message)

    def abort(self, status: Status) -> None:
        """End with another status than OK."""
        if self._end(status):
            self._replied(self, status, b"")
