"""The HTTP server: a thread with an event loop of its own, and a socket that was bound before it began."""

import asyncio
import functools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from inferry_server.addresses import Address, http_not_bound
from inferry_server.errors import StartError
from inferry_server.http.crowd import Crowd
from inferry_server.http.direct import DirectInfer
from inferry_server.http.handshakes import Handshakes, Listener
from inferry_server.http.limits import HttpLimits
from inferry_server.http.protocol import BoundedProtocol

logger = logging.getLogger(__name__)

Application = Callable[[Any, Any, Any], Awaitable[None]]

_BACKLOG = 128
_LEAST_HANDSHAKES = 16  # under way at a time; each takes milliseconds
_KEEP_ALIVE_S = 60  # between the requests of a client; balancers keep connections for about as long
_TICK_S = 1.0
_START_S = 10.0
_GRACE_S = 3  # for replies that are on their way when the server ends


@dataclass(frozen=True)
class HttpOptions:
    """How connections are treated.

    Attributes:
        most_connections: open at a time.
        most_of_peer: of them, from one address.
        limits: of each.
        tls: where connections are encrypted.
        direct: answers infer requests without the application; None: nothing does.
        closed: as that of `BoundedProtocol`; called on the server's thread.
        trusts: as that of `BoundedProtocol`.
    """

    most_connections: int = 256
    most_of_peer: int = 192
    limits: HttpLimits = field(default_factory=HttpLimits)
    tls: ssl.SSLContext | None = None
    direct: DirectInfer | None = None
    closed: Callable[[str], object] = lambda _: None
    trusts: Callable[[ssl.SSLObject], bool] = lambda _: True


class HttpServer:
    """Serves an ASGI application. `start` and `close` are called once each, by one thread, and block until done."""

    def __init__(self, application: Application, options: HttpOptions) -> None:
        tls = options.tls
        most, closed = options.most_connections, options.closed
        self._handshakes = (
            None
            if tls is None
            else Handshakes(max(_LEAST_HANDSHAKES, most // 4), options.limits.read_s, closed, time.monotonic)
        )
        self._server = _Server(
            uvicorn.Config(
                application,
                http=functools.partial(
                    BoundedProtocol,
                    limits=options.limits,
                    crowd=Crowd(most, options.most_of_peer, closed),
                    handshakes=self._handshakes,
                    direct=options.direct,
                    closed=closed,
                    trusts=options.trusts,
                ),
                loop="asyncio",
                ws="none",
                lifespan="off",
                workers=1,  # else an environment variable decides
                interface="asgi3",
                log_config=None,
                log_level="error",  # a client's mistakes are answered, and no matter of the log
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
            ),
            self._handshakes,
        )
        self._thread: threading.Thread | None = None

    def start(self, address: Address) -> Address:
        """Listen; port 0 takes a free one.

        Returns:
            The address, with the port that was bound.

        Raises:
            StartError: the address cannot be bound.
        """
        listening = _bind(address)
        port: int = listening.getsockname()[1]
        if self._handshakes is not None:
            listening = Listener(listening, self._handshakes)
        self._thread = threading.Thread(target=self._serve, args=(listening,), name="http", daemon=True)
        self._thread.start()
        if not self._server.answers.wait(_START_S):
            raise StartError(f"the HTTP server at {address} did not begin to answer within {_START_S:g} s")
        return Address(address.host, port)

    def close(self) -> None:
        """Answer nothing more. What is being answered has three seconds."""
        if self._thread is not None:
            self._server.ask_to_end()
            self._thread.join()

    def _serve(self, listening: socket.socket) -> None:
        try:
            self._server.run([listening])
        except Exception:
            logger.exception("the HTTP server has ended; gRPC is answered on")
        finally:
            self._server.answers.set()


class _Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is an extra, and not looked into
    """uvicorn's server, that looks at its connections once a second and ends when it is told to.

    Args:
        config: uvicorn's.
        handshakes: of connections that it does not know yet; None where there is no TLS.

    Attributes:
        answers: set when connections are accepted.
    """

    def __init__(self, config: uvicorn.Config, handshakes: Handshakes | None) -> None:
        super().__init__(config)
        self._handshakes = handshakes
        logging.getLogger("uvicorn.error").addFilter(_something_was_lost)
        self.answers = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def ask_to_end(self) -> None:
        """End soon. From any thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._ending.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.answers.set()
        while not await self.on_tick(0):
            for connection in list(self.server_state.connections):
                connection.expire(self._loop.time())
            if self._handshakes is not None:
                self._handshakes.expire(self._loop.time())
            try:
                await asyncio.wait_for(self._ending.wait(), _TICK_S)
            except TimeoutError:
                continue


def _something_was_lost(record: logging.LogRecord) -> bool:
    """False for uvicorn's error that it has cancelled 0 tasks: a client has not yet closed, and got its whole reply."""
    return not (str(record.msg).startswith("Cancel %s running task") and record.args == (0,))


def _bind(address: Address) -> socket.socket:
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # Without SO_REUSEPORT: a second server on the port is refused.
        listening = socket.create_server(family[4][:2], family=family[0], backlog=_BACKLOG)
    except OSError as error:
        raise http_not_bound(address, error) from error
    # Connections inherit it. asyncio does so only where it made the socket; without, a reply waits some 40 ms between
    # its headers and its body for the client's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
