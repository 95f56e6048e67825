"""An HTTP request as a handler sees it: a `Call` like any other, and its reply for whoever awaits it."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.requests import Request

from inferry_server.errors import ServingError
from inferry_server.http.bodies import BodyBudget, ClientGoneError, Receive, read_body
from inferry_server.rpc.router import Account, EndingCall, Router
from inferry_server.rpc.statuses import CANCELLED, OK, Status
from inferry_server.trace import Metadata

logger = logging.getLogger(__name__)

_WATCH_AFTER_S = 0.01  # of waiting: most calls are answered sooner and need no watch


class HttpCall(EndingCall):
    """One unary call that HTTP brought. It has no deadline: the parameter `timeout` of a request is one.

    Args:
        method: whose handler answers, as gRPC names it.
        metadata: the headers.
        account: told once how it ended.
        loop: of the HTTP server, whose thread calls `outcome` and `cancelled`.
    """

    def __init__(self, method: str, metadata: Metadata, account: Account, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(method, metadata, None, account)
        self._loop = loop
        self._thread = threading.get_ident()
        self._outcome: asyncio.Future[tuple[Status, bytes]] = loop.create_future()

    def reply(self, message: bytes) -> None:
        """Answer with a message."""
        self._reply(OK, message)

    def abort(self, status: Status) -> None:
        """End with another status than OK."""
        self._reply(status, b"")

    def cancelled(self, status: Status = CANCELLED) -> None:
        """The client has gone: nobody waits for another outcome."""
        super().cancelled(status)
        self._tell(status, b"")

    async def outcome(self, receive: Receive) -> tuple[Status, bytes]:
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
            self.cancelled()
            raise
        finally:
            timer.cancel()
            for task in watching:
                task.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancelled()

    def _reply(self, status: Status, message: bytes) -> None:
        if not self._end(status):
            return
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
        budget: of bodies.
    """

    def __init__(self, router: Router, budget: BodyBudget) -> None:
        self._router = router
        self._budget = budget

    async def ask(self, method: str, asked: Request, message: Callable[[bytes], bytes]) -> tuple[Status, bytes]:
        """What the handler of a method answers.

        Args:
            method: as gRPC names it.
            asked: the HTTP request.
            message: makes the request's message of its body; what it raises is the call's outcome.

        Returns:
            The status; with OK, the response message.

        Raises:
            ClientGoneError: nobody waits for the reply.
        """
        scope, receive = asked.scope, asked.receive
        metadata = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        names = partial(_certificate_names, scope)
        refusal = self._router.refuses(method, metadata, names)
        if refusal is not None:
            return refusal, b""
        account = self._router.received(method, metadata)
        call = HttpCall(method, metadata, account, asyncio.get_running_loop())
        try:
            body = await read_body(asked.headers, receive, self._budget)
            came_at = time.monotonic()
            request = message(body)
        except (ClientGoneError, asyncio.CancelledError):
            call.cancelled()
            raise
        except Exception as error:
            if not isinstance(error, ServingError):
                logger.error("unexpected error in an HTTP request for %s", method, exc_info=error)
            call.fail(error)
        else:
            # The body may have taken minutes.
            if self._router.access is not None and (late := self._router.refuses_still(method, metadata, names)):
                call.abort(late)  # guard: http-late-revoked
            else:
                call.waited_s = time.monotonic() - came_at  # guard: http-waited
                self._router.handle(call, request)
        return await call.outcome(receive)


def _certificate_names(scope: Any) -> Iterable[str]:
    """What the verified certificate of an HTTP request's connection says."""
    names: Iterable[str] = scope["state"].get("certificate_names", ())
    return names
