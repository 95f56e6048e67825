"""Server-sent events as an HTTP answer that goes on until its client goes, or nothing more comes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.responses import Response

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class EventStream(Response):  # type: ignore[misc]  # starlette is an extra, and not looked into
    """Sends events as they come; `HEAD` gets none.

    Starlette's own streaming answer imports the rest of anyio with the first stream, which holds the interpreter for
    some 60 ms, while requests wait.

    Args:
        events: as bytes, each with the empty line at its end.
    """

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        self._events = events
        self.status_code = 200
        self.background = None
        self.init_headers({"content-type": "text/event-stream", "cache-control": "no-store"})

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Send until the client goes or the events end; what they raise is raised."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":  # guard: live-head
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        sending = asyncio.create_task(self._send(send))
        going = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((sending, going), return_when=asyncio.FIRST_COMPLETED)
        finally:
            going.cancel()
            if not sending.done():
                sending.cancel()
        if not sending.cancelling():
            await sending

    async def _send(self, send: Send) -> None:
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
