"""How grpcio's asyncio server handles calls: each method's handler, and which calls end because their clients wait."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import takewhile
from typing import Any

import grpc
import grpc.aio

from inferry_server.errors import (
    MemoryShortError,
    RequestNotReceivedError,
    ServingError,
    ShuttingDownError,
    StreamIdleError,
    TooManyOpenCallsError,
)
from inferry_server.rpc.call import fail
from inferry_server.rpc.router import UNKNOWN_METHOD, Router
from inferry_server.rpc.statuses import Status, no_message, unknown_method
from inferry_server.security.certificate_names import names_of
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.transport.aio_calls import CANCEL_SLACK_S, AioCall, AioStreamCall, auth_context_of
from inferry_server.transport.aio_unread import UnreadReplies
from inferry_server.transport.half_sent import HalfSent, giving_way
from inferry_server.transport.open_calls import idle, longest_waiting
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.revoking import Revoking


class AioHandler(grpc.GenericRpcHandler):
    """Finds a method's handler for grpcio; every message stays bytes."""

    def __init__(
        self,
        router: Router,
        loop: asyncio.AbstractEventLoop,
        options: TransportOptions,
    ) -> None:
        self._router = router
        self._certificates = options.certificates_of_clients
        self._revoking = Revoking(router, self._certificates)
        self._report = options.report
        self._loop = loop
        self._options = options
        self.half_sent = HalfSent()
        self.unread = UnreadReplies(loop, options.reply_read_timeout_s, self._reply_given_up)
        self._released = asyncio.Event()
        self._released.set()
        self.last_arrival = 0.0
        self._held = 0  # calls that wait for the release
        self._stopping = False
        self._streams: set[AioStreamCall] = set()
        self._unasked: dict[asyncio.Task[Any], float] = {}  # of unary calls without a request yet, and since when
        self._sent_away: dict[asyncio.Task[Any], ServingError] = {}  # those of them that were ended, and why

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """As `GenericRpcHandler.service`: how a call of this method is handled."""
        path = str(handler_call_details.method)
        metadata = tuple(handler_call_details.invocation_metadata or ())
        if self._router.is_unary(path):
            # As a stream: grpcio tells of a unary call only when its request is there, and never ends one
            # that half-closes without.
            return grpc.stream_unary_rpc_method_handler(self._unary(path, metadata))
        if self._router.is_stream(path):
            # On the wire, one message is a stream of one: this serves every kind of streaming RPC.
            return grpc.stream_stream_rpc_method_handler(self._stream(path, metadata))
        return grpc.stream_stream_rpc_method_handler(self._refuse(path))

    def hold(self) -> None:
        """Keep new calls waiting."""
        self._released.clear()

    def owes_replies(self) -> bool:
        """Whether unary requests that do not wait for the release have no reply yet."""
        return self._router.unary_in_flight() > self._held + len(self._unasked)

    def release(self) -> None:
        """Handle what was held, and let streams end."""
        self._stopping = True
        self._released.set()
        for stream in list(self._streams):
            stream.drain()

    def turn_away(self) -> None:
        """Wait no longer for requests of calls that were opened."""
        for task in list(self._unasked):
            self._send_away(task, ShuttingDownError())

    def end_overdue(self) -> None:
        """End the unary calls whose request has not come in time."""
        limit_s = self._options.request_read_timeout_s
        due = self._loop.time() - limit_s
        for task in list(takewhile(lambda task: self._unasked[task] <= due, self._unasked)):
            self._send_away(task, RequestNotReceivedError(limit_s=limit_s))  # guard: requests-overdue-aio
            self.half_sent.ended()  # guard: overdue-trimmed-aio

    def end_revoked(self) -> None:
        """End the streams whose callers may not make them any more; `_unary` looks at unary calls."""
        if self._revoking.is_due():
            self._revoking.begin()
            self._revoking.review(self._streams)

    def _end_if_revoked(self, call: AioCall) -> bool:
        return bool(self._revoking.review([call]))

    def end_silent(self) -> None:
        """End streams whose clients do not send, and what waits for longest where too many calls do."""
        limit_s, most = self._options.stream_idle_timeout_s, self._options.max_open_calls
        for stream in idle(self._streams, self._loop.time() - limit_s):
            fail(stream, StreamIdleError(limit_s=limit_s))
        if len(self._unasked) + len(self._streams) <= most:
            return
        for call in longest_waiting(self._unasked, self._streams, most):
            if isinstance(call, AioStreamCall):
                fail(call, TooManyOpenCallsError(limit=most))
            else:
                self._send_away(call, TooManyOpenCallsError(limit=most))
            self.half_sent.ended()

    def give_up_unread(self) -> None:
        """Wait no longer for clients who do not read their replies."""
        self.unread.give_up(self._streams)

    def _reply_given_up(self) -> None:
        self._router.reply_given_up()
        self.half_sent.ended()

    @property
    def awaits_requests(self) -> bool:
        """Whether there are unary calls without a request."""
        return bool(self._unasked)

    def give_way(self) -> None:
        """End calls whose requests come slowly: memory is short."""
        for task in giving_way(self._unasked, self._loop.time()):
            self._send_away(task, MemoryShortError())
            self.half_sent.ended()

    def _send_away(self, task: asyncio.Task[Any], error: ServingError) -> None:
        del self._unasked[task]
        self._sent_away[task] = error
        task.cancel()

    def _unary(self, path: str, metadata: Sequence[tuple[str, str | bytes]]) -> Any:
        async def behave(messages: AsyncIterator[bytes], context: Any) -> bytes:  # noqa: ARG001 - grpcio passes it
            await self._refuse_caller(path, metadata, context)
            call = AioCall(path, metadata, context, self._loop, self._router.received(path, metadata))
            reviews = self._revoking.reviews
            try:
                message = await self._request_of(call, context)
                if reviews != self._revoking.reviews and self._end_if_revoked(call):  # guard: unasked-revoked-aio
                    message = None
                if message is not None:
                    await self._arrived()
                    self._router.handle(call, message)
                status, reply = await call.outcome
            except asyncio.CancelledError:
                call.cancelled()
                raise
            if status.code is not grpc.StatusCode.OK:
                await context.abort(status.code, status.message, status.trailing_metadata)
            if self._report is not None:
                context.set_trailing_metadata(self._report.metadata)
            self.unread.sent(context)
            return reply

        return behave

    def _stream(self, path: str, metadata: Sequence[tuple[str, str | bytes]]) -> Any:
        async def behave(messages: AsyncIterator[bytes], context: Any) -> None:
            await self._refuse_caller(path, metadata, context)
            call = AioStreamCall(path, metadata, context, self._loop, self._router.received(path, metadata))
            self._streams.add(call)
            try:
                self.last_arrival = self._loop.time()
                call.read(messages, self._router.open(call))
                if self._stopping:
                    call.drain()
                status = await call.pump()
            except asyncio.CancelledError:
                call.cancelled()
                raise
            finally:
                self._streams.discard(call)
                call.stop_reading()
            if status.code is not grpc.StatusCode.OK:
                await context.abort(status.code, status.message, status.trailing_metadata)

        return behave

    async def _refuse_caller(self, path: str, metadata: Sequence[tuple[str, str | bytes]], context: Any) -> None:
        """End a call unread whose caller may not make it."""
        status = None
        if self._certificates is not None:
            status = self._refuse_connection(path, self._certificates, context)
        if status is None:
            status = self._router.refuses(path, metadata, lambda: self._names_of(context))
        if status is not None:
            await context.abort(status.code, status.message)

    def _refuse_connection(self, path: str, certificates: ClientCertificates, context: Any) -> Status | None:
        peer = context.peer().encode()
        if certificates.holds(peer, context.peer_identities()):
            return None
        return self._router.refuses_connection(path, certificates, auth_context_of(context), peer)

    def _names_of(self, context: Any) -> Iterable[str]:
        """What the client's verified certificate says."""
        certificates, auth_context = self._certificates, auth_context_of(context)
        return names_of(auth_context) if certificates is None else certificates.names(auth_context)

    def _refuse(self, path: str) -> Any:
        async def behave(messages: AsyncIterator[bytes], context: Any) -> None:  # noqa: ARG001 - grpcio passes it
            status = unknown_method(path)
            self._router.received(UNKNOWN_METHOD, ()).ended(status)
            await context.abort(status.code, status.message)

        return behave

    async def _request_of(self, call: AioCall, context: Any) -> bytes | None:
        """The request of a unary call; None where the call was ended for want of one."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - grpcio runs every handler in one
        self._unasked[task] = self._loop.time()
        try:
            message = await context.read()
            if message is not grpc.aio.EOF:
                return bytes(message)
            await asyncio.sleep(CANCEL_SLACK_S)
            if context.cancelled():
                raise asyncio.CancelledError
            call.abort(no_message(call.method))
        except asyncio.CancelledError:
            error = self._sent_away.get(task)
            if error is None:
                self.half_sent.ended()  # guard: half-sent-trimmed-aio
                raise
            task.uncancel()  # it was `_send_away`
            fail(call, error)
        finally:
            self._unasked.pop(task, None)
            self._sent_away.pop(task, None)
        return None

    async def _arrived(self) -> None:
        if not self._released.is_set():
            self.last_arrival = self._loop.time()
            self._held += 1
            try:
                await self._released.wait()
            finally:
                self._held -= 1
