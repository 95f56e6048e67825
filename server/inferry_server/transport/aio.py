"""The transport over grpcio's public asyncio API."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from itertools import takewhile
from typing import Any, TypeVar

import grpc
import grpc.aio

from inferry_server.addresses import A, Address, bound
from inferry_server.errors import (
    MemoryShortError,
    RequestNotReceivedError,
    ServingError,
    ShuttingDownError,
    StreamIdleError,
    TooManyOpenCallsError,
)
from inferry_server.executing.watchdog import Pulse
from inferry_server.rpc.call import fail
from inferry_server.rpc.router import UNKNOWN_METHOD, Router
from inferry_server.rpc.statuses import Status, no_message, unknown_method
from inferry_server.security.certificate_names import names_of
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.transport.aio_calls import CANCEL_SLACK_S, AioCall, AioStreamCall, auth_context_of
from inferry_server.transport.aio_unread import UnreadReplies
from inferry_server.transport.drain import drain
from inferry_server.transport.half_sent import HalfSent, giving_way, is_memory_short
from inferry_server.transport.open_calls import idle, longest_waiting
from inferry_server.transport.options import TransportOptions, cannot_bind, refuse_taken
from inferry_server.transport.peers import PeerBound, peer_bound
from inferry_server.transport.revoking import Revoking
from inferry_server.transport.tls_connections import TlsConnections

logger = logging.getLogger(__name__)

T = TypeVar("T")

_STOP_SLACK_S = 2.0
_TURN_S = 0.2  # as often as gRPC's own poller wakes


class AioTransport:
    """A gRPC server on an event loop of its own, in a thread of its own.

    `start` and `stop` are called once each, by one thread, and block until done.
    """

    def __init__(self, router: Router, options: TransportOptions) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpc-aio", daemon=True)
        self._server: grpc.aio.Server | None = None
        self._router = router
        self._peers: PeerBound | None = None
        self._port: int | None = None  # None: a Unix domain socket, whose clients have no address
        self._tls: TlsConnections | None = None
        self._handler = _GenericHandler(router, self._loop, options)
        self._turns = 0
        self._pulse = Pulse()

    def start(self, address: A) -> A:
        """Listen.

        Returns:
            The address, with the port that was bound.

        Raises:
            StartError: the address cannot be bound.
        """
        self._thread.start()
        self._loop.call_soon_threadsafe(self._turn)
        address = self._run(self._start(address))
        self._peers = peer_bound(self._options, address, self._router.cut_off)
        self._port = address.port if isinstance(address, Address) else None
        return address

    def stop(self, grace_s: float) -> bool:
        """Accept no more calls, let those under way finish (`drain.py`), and cancel what is left after `grace_s`.

        Does nothing where `start` was not called.

        Returns:
            Whether every call ended by itself.
        """
        if not self._thread.is_alive():
            return True
        began = time.monotonic()
        try:
            self._run(self._stop(grace_s), timeout_s=grace_s + _STOP_SLACK_S)
        except TimeoutError:
            logger.warning("calls could not be ended within %g s", grace_s + _STOP_SLACK_S)
        in_time = time.monotonic() - began < grace_s
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SLACK_S)
        return in_time

    def look(self) -> float:
        """Seconds for which the event loop has not gone on; the watchdog looks every quarter of a second."""
        self._handler.half_sent.look()
        if self._handler.awaits_requests and is_memory_short(self._options.max_message_bytes):
            self._loop.call_soon_threadsafe(self._handler.give_way)
        if self._peers is not None:
            self._peers.look()
        if self._port is not None:
            self._handler.unread.cut_off(self._port)
        if self._tls is not None:
            self._tls.look()
        return self._pulse.still_s(self._turns)

    def _turn(self) -> None:
        self._turns += 1
        self._handler.end_overdue()
        self._handler.end_revoked()
        self._handler.end_silent()
        if self._port is not None:
            self._handler.give_up_unread()
        self._loop.call_later(_TURN_S, self._turn)

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(timeout_s)

    async def _start(self, address: A) -> A:
        refuse_taken(address)
        server = grpc.aio.server(handlers=[self._handler], options=self._options.arguments())
        tls = self._options.open_tls()
        try:
            if tls is None:
                port = server.add_insecure_port(str(address))
            else:
                port = server.add_secure_port(str(address), tls.credentials())
        except RuntimeError:
            port = 0
        if port == 0:
            raise cannot_bind(address)
        await server.start()
        self._server = server
        if tls is not None:
            self._tls = TlsConnections(tls, self._options.certificates_of_clients, self._router.tls_connections)
        return bound(address, port)

    async def _stop(self, grace_s: float) -> None:
        if self._server is None:
            return
        draining = _DrainingServer(self._server, self._handler, grace_s)
        for pause_s in drain(draining, grace_s, self._loop.time):
            await asyncio.wait({draining.ended}, timeout=pause_s)
        await draining.ended


class _DrainingServer:
    """What `drain` asks of grpcio's asyncio server, on its loop. The server itself cancels what is left.

    Attributes:
        ended: done when it has stopped.
    """

    def __init__(self, server: grpc.aio.Server, handler: "_GenericHandler", grace_s: float) -> None:
        self._server = server
        self._handler = handler
        self._grace_s = grace_s
        self._closing: asyncio.Task[None] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def last_arrival(self) -> float:
        """As `Draining.last_arrival`."""
        return self._handler.last_arrival

    def hold(self) -> None:
        """As `Draining.hold`."""
        self._handler.hold()

    def owes_replies(self) -> bool:
        """As `Draining.owes_replies`."""
        return self._handler.owes_replies()

    def has_ended(self) -> bool:
        """As `Draining.has_ended`."""
        return self.ended.done()

    def close(self) -> None:
        """As `Draining.close`."""
        self._closing = asyncio.ensure_future(self._close())

    def turn_away(self) -> None:
        """As `Draining.turn_away`."""
        self._handler.turn_away()

    async def _close(self) -> None:
        try:
            stopping = asyncio.ensure_future(self._server.stop(self._grace_s))
            await asyncio.sleep(0)  # lets it begin: from here on no call arrives
            self._handler.release()
            await stopping
        finally:
            self.ended.set_result(None)


class _GenericHandler(grpc.GenericRpcHandler):
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
