"""An HTTP request as a handler sees it: a `Call` like any other, and its answer for whoever awaits it."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from inferry_server.errors import ServingError
from inferry_server.http.bodies import ClientGoneError, Receive
from inferry_server.rpc.router import CallAccount, Router
from inferry_server.rpc.statuses import CANCELLED, OK, Status, status_of
from inferry_server.trace import RequestTrace

logger = logging.getLogger(__name__)

Metadata = Sequence[tuple[str, str | bytes]]

_WATCH_AFTER_S = 0.01  # of waiting: most calls are answered sooner and need no watch


class HttpCall:
    """One unary call that HTTP brought. Thread-safe; the first of `reply`, `abort` and `cancel` ends it.

    Args:
        method: whose handler answers, as gRPC names it.
        metadata: the headers.
        peer: who asks.
        account: told once how it ended.
        loop: of the HTTP server, whose thread calls `answer` and `cancel`.
    """

    deadline: float | None = None  # HTTP has none; the parameter `timeout` of a request is one
    waited_s = 0.0

    def __init__(
        self, method: str, metadata: Metadata, peer: str, account: CallAccount, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.peer = peer
        self.trace: RequestTrace | None = account.trace
        self._account = account
        self._loop = loop
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._ended = False
        self._cancelled = False
        self._callbacks: list[Callable[[], object]] = []
        self._outcome: asyncio.Future[tuple[Status, bytes]] = loop.create_future()

    def reply(self, message: bytes) -> None:
        """Answer with a message."""
        self._end(OK, message)

    def fail(self, error: Exception) -> None:
        """End with the status of an error."""
        self._end(status_of(error), b"")

    def abort(self, status: Status) -> None:
        """End with another status than OK."""
        self._end(status, b"")

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back once if the client goes away before the answer; at once if it has."""
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """The client has gone."""
        with self._lock:
            self._cancelled = not self._ended
            callbacks, self._callbacks = self._callbacks, []
        if self._cancelled:
            self._end(CANCELLED, b"")
            for callback in callbacks:
                callback()

    async def answer(self, receive: Receive) -> tuple[Status, bytes]:
        """Wait for the outcome, or until the client goes away.

        Args:
            receive: of the connection, whose request has been read whole: then it tells of nothing but the end.

        Returns:
            The status; with OK, the response message.
        """
        if self._outcome.done():
            return self._outcome.result()
        watching: list[asyncio.Task[None]] = []
        timer = self._loop.call_later(
            _WATCH_AFTER_S, lambda: watching.append(self._loop.create_task(self._watch(receive)))
        )
        try:
            return await self._outcome
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            timer.cancel()
            for task in watching:
                task.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel()

    def _end(self, status: Status, message: bytes) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._account.ended(status)
        if threading.get_ident() == self._thread:
            self._tell(status, message)
        else:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(self._tell, status, message)

    def _tell(self, status: Status, message: bytes) -> None:
        if not self._outcome.done():
            self._outcome.set_result((status, message))


class Calls:
    """Opens calls of HTTP requests and has the router's handlers answer them. For the loop's thread.

    Args:
        router: finds the handlers.
    """

    def __init__(self, router: Router) -> None:
        self._router = router

    async def ask(
        self, method: str, scope: Any, receive: Receive, message: Callable[[], Awaitable[bytes]]
    ) -> tuple[Status, bytes]:
        """What the handler of a method answers.

        Args:
            method: as gRPC names it.
            scope: of the HTTP request.
            receive: of its connection.
            message: makes the request's message; what it raises is the call's outcome.

        Returns:
            The status; with OK, the response message.

        Raises:
            ClientGoneError: nobody waits for the answer.
        """
        metadata = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        refusal = self._router.refuses(method, metadata, lambda: scope["state"].get("certificate_names", ()))
        if refusal is not None:
            return refusal, b""
        account = self._router.received(method, metadata)
        call = HttpCall(method, metadata, _peer(scope), account, asyncio.get_running_loop())
        try:
            request = await message()
        except (ClientGoneError, asyncio.CancelledError):
            call.cancel()
            raise
        except Exception as error:
            if not isinstance(error, ServingError):
                logger.error("unexpected error in an HTTP request for %s", method, exc_info=error)
            call.fail(error)
        else:
            self._router.handle(call, request)
        return await call.answer(receive)


def _peer(scope: Any) -> str:
    client = scope.get("client")
    return f"http:{client[0]}:{client[1]}" if client else "http:"
