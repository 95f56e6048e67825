"""The transport over grpcio's public asyncio API."""

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import grpc.aio

from inferry_server.addresses import A, Address, bound
from inferry_server.executing.watchdog import Pulse
from inferry_server.rpc.router import Router
from inferry_server.transport.aio_draining import AioDraining
from inferry_server.transport.aio_handler import AioHandler
from inferry_server.transport.drain import drain
from inferry_server.transport.half_sent import is_memory_short
from inferry_server.transport.options import TransportOptions, cannot_bind, refuse_taken
from inferry_server.transport.peers import PeerBound, peer_bound
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
        self._handler = AioHandler(router, self._loop, options)
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
        """Do what is due beside the event loop; the watchdog calls it every quarter of a second.

        Returns:
            Seconds for which the event loop has stood still.
        """
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
        draining = AioDraining(self._server, self._handler, grace_s)
        for pause_s in drain(draining, grace_s, self._loop.time):
            await asyncio.wait({draining.ended}, timeout=pause_s)
        await draining.ended
