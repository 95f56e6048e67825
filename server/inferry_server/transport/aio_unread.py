"""Replies that clients of grpcio's asyncio server do not read: the connections that they wait on are cut off.

That server ends no single call whose reply is on its way: what was written waits in gRPC's library until the client
reads it, or its connection ends. So the connection ends, with the other calls on it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any

from inferry_server.transport.aio_calls import AioStreamCall
from inferry_server.transport.open_calls import unread
from inferry_server.transport.pacing import Pacing
from inferry_server.transport.peers import cut_off_clients

_CORES, _LONGEST_S = 5e-3, 5.0  # that looking for connections may take; how far apart these looks are at most


class UnreadReplies:
    """The replies of unary calls that are on their way, and the clients that are given up.

    The loop's thread calls everything but `cut_off`, which the watchdog's calls.

    Args:
        loop: of the server.
        limit_s: for a client to read a reply.
        given_up: told of each reply that is given up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_s: float, given_up: Callable[[], object]) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._given_up = given_up
        self._on_their_way: dict[asyncio.Task[Any], tuple[float, Any]] = {}  # since when, and the context of the call
        self._clients: deque[str] = deque()  # that are to be cut off
        self._pacing = Pacing(_CORES, _LONGEST_S)

    def sent(self, context: Any) -> None:
        """The calling task, of a unary call, is about to send its reply; it ends when the client has read it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - grpcio runs every handler in one
        self._on_their_way[task] = self._loop.time(), context
        task.add_done_callback(self._was_read)

    def give_up(self, streams: Iterable[AioStreamCall]) -> None:
        """Wait no longer for clients who have not read a reply in time, of a unary call or of one of some streams."""
        now = self._loop.time()
        replies, since = self._on_their_way, now - self._limit_s
        for task in list(takewhile(lambda task: replies[task][0] <= since, replies)):  # guard: replies-unread-aio
            self._give_up(replies.pop(task)[1].peer())
        for stream in unread(streams, since):
            stream.active_at = now  # else it would be given up again before its connection has ended
            self._give_up(stream.peer())

    def cut_off(self, port: int) -> None:
        """End the connections of clients that were given up, unless it is too early: looking for them takes a while.

        Args:
            port: of the server.
        """
        if self._clients and self._pacing.is_due():
            clients = {self._clients.popleft() for _ in range(len(self._clients))}
            try:
                with self._pacing.work():
                    cut_off_clients(clients, port)
            except OSError:  # no descriptor is left to look with
                self._clients.extend(clients)

    def _give_up(self, client: str) -> None:
        self._given_up()
        self._clients.append(client)

    def _was_read(self, task: asyncio.Task[Any]) -> None:
        self._on_their_way.pop(task, None)
