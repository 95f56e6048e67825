"""Replies that clients of grpcio's asyncio server do not read: the connections that they wait on are cut off.

That server ends no single call whose reply is on its way: what was written waits in gRPC's library until the client
reads it, or its connection ends. So the connection ends, with the other calls on it.

gRPC tells of a connection only its client's address and port, and another client may have these as soon as the
connection has ended. A call that waits for its client shows that its connection lasts, but it learns of the end a
moment late. So a look notes the sockets at the address, and a later one cuts off those that are still there, if the
call still waits then.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from inferry_server.transport.aio_calls import AioStreamCall
from inferry_server.transport.open_calls import unread
from inferry_server.transport.pacing import Pacing
from inferry_server.transport.peers import cut_off, sockets_of_clients

_CORES, _LONGEST_S = 5e-3, 5.0  # that looking for connections may take; how far apart these looks are at most
_TURNS = 5  # of the loop, after which a call knows that its connection has ended: a second


@dataclass(slots=True)
class _GivenUp:
    """A client that is to be cut off.

    Attributes:
        client: as gRPC names it.
        call: waits for it; done soon after its connection has ended.
        sockets: the numbers of those at its address, as they were seen first; None: not yet.
        seen_in: the turn of the loop then.
    """

    client: str
    call: asyncio.Future[Any]
    sockets: Collection[int] | None = None
    seen_in: int = 0


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
        self._clients: deque[_GivenUp] = deque()
        self._turns = 0
        self._pacing = Pacing(_CORES, _LONGEST_S)

    def sent(self, context: Any) -> None:
        """The calling task, of a unary call, is about to send its reply; it ends when the client has read it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - grpcio runs every handler in one
        self._on_their_way[task] = self._loop.time(), context
        task.add_done_callback(self._was_read)

    def give_up(self, streams: Iterable[AioStreamCall]) -> None:
        """Wait no longer for clients who have not read a reply in time, of a unary call or of one of some streams.

        Called once in each of the loop's turns, which are 0.2 s apart at least.
        """
        self._turns += 1
        now = self._loop.time()
        replies, since = self._on_their_way, now - self._limit_s
        for task in list(takewhile(lambda task: replies[task][0] <= since, replies)):  # guard: replies-unread-aio
            self._give_up(replies.pop(task)[1].peer(), task)
        for stream in unread(streams, since):
            stream.active_at = now  # else it would be given up again before its connection has ended
            self._give_up(stream.peer(), stream.task)

    def cut_off(self, port: int) -> None:
        """End the connections of clients that were given up, unless it is too early: looking for them takes a while.

        Args:
            port: of the server.
        """
        if not self._clients or not self._pacing.is_due():
            return
        popped = [self._clients.popleft() for _ in range(len(self._clients))]
        waiting = [one for one in popped if not one.call.done()]
        if waiting:
            with suppress(OSError), self._pacing.work():  # no descriptor is left to look with
                self._cut_off(waiting, port)
        self._clients.extend(waiting)

    def _cut_off(self, clients: Collection[_GivenUp], port: int) -> None:
        found = sockets_of_clients({one.client for one in clients}, port)
        for one in clients:
            sockets = found.get(one.client, {})
            if one.sockets is None:
                one.sockets, one.seen_in = sockets.keys(), self._turns
            elif self._turns >= one.seen_in + _TURNS:  # guard: unread-settled
                lasting = one.sockets & sockets.keys()  # guard: unread-same-socket
                one.sockets = None  # where the call waits on, it is looked for again
                if one.call.done():  # guard: unread-waits-on
                    continue
                for number in lasting:
                    cut_off(sockets[number], number)

    def _give_up(self, client: str, call: asyncio.Future[Any]) -> None:
        self._given_up()
        self._clients.append(_GivenUp(client, call))

    def _was_read(self, task: asyncio.Task[Any]) -> None:
        self._on_their_way.pop(task, None)
