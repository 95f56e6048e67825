"""Connections of the HTTP port, played: a real server's requests are handled on the calling thread, nothing travels.

Every round has the same events in the same order, so what a request costs can be counted.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from uvicorn.server import ServerState

from inferry_server.app import Server
from testkit.waiting import wait_until


class PlayedTransport:
    """The socket of one connection.

    Attributes:
        written: what was sent on it, one piece for each write.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None: ...


class PlayedHttp:
    """Clients of a server, each with a connection, whose requests come in the same moment.

    Args:
        server: that answers them.
        clients: how many.
        loop: on which they are handled.

    Attributes:
        woken: what other threads have woken the loop for, and it has not done yet.
        wake_ups: how often they have.
        direct: what answers them.
        connections: of the clients.
        transports: of the connections.
        counted: what is done on the loop's thread runs through it, a part of a round at a time.
    """

    def __init__(self, server: Server, clients: int, loop: asyncio.AbstractEventLoop) -> None:
        http: Any = server._http
        config = http._server._server.config
        self.direct: Any = config.http_protocol_class.keywords["direct"]
        self.loop = loop
        self.wake_ups = 0
        self.woken: list[Callable[[], object]] = []
        vars(loop)["call_soon_threadsafe"] = self.woken.append  # what other threads wake it for waits
        self.transports = [PlayedTransport() for _ in range(clients)]
        self.counted: Callable[[Callable[[], object]], object] = lambda act: act()
        state = ServerState()
        state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        self.connections = [
            config.http_protocol_class(config=config, server_state=state, app_state={}, _loop=loop)
            for _ in self.transports
        ]
        for connection, transport in zip(self.connections, self.transports, strict=True):
            connection.connection_made(transport)

    def play(self, request: bytes, rounds: int) -> None:
        """Send a request on each connection, and handle all replies, so many times."""
        for _ in range(rounds):
            for connection in self.connections:
                self.loop.call_soon(connection.data_received, request)
            self.counted(self._run)
            # The batcher's thread computes: this one goes on when all of its replies are there.
            wait_until(lambda: len(self.direct._replies) == len(self.connections), "all replies")
            wakes, self.woken[:] = list(self.woken), []
            self.wake_ups += len(wakes)
            for wake in wakes:
                self.loop.call_soon(wake)
            self.counted(self._run)

    def _run(self) -> None:
        """Do what is ready, and what that makes ready."""
        self.loop.run_until_complete(_turns())


async def _turns() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@contextmanager
def played_http(server: Server, clients: int) -> Iterator[PlayedHttp]:
    """Clients of a server whose own loop handles nothing of theirs."""
    loop = asyncio.new_event_loop()
    try:
        yield PlayedHttp(server, clients, loop)
    finally:
        loop.close()
