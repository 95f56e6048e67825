"""TLS connections whose handshake is under way: the HTTP server does not know them yet, and asyncio waits a minute."""

import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from inferry_server.http.crowd import peer_of


class Handshakes:
    """The handshakes of one port, bounded in number and time. For the loop's thread.

    Args:
        most: under way at a time; for another one, the oldest of the peer with the most of them is given up.
        limit_s: for each.
        closed: told why a connection is closed: `crowded` or `slow`.
        clock: of the loop.
    """

    def __init__(self, most: int, limit_s: float, closed: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._most = most
        self._limit_s = limit_s
        self._closed = closed
        self._clock = clock
        # By descriptor; the oldest first. Of one that has ended unsuccessfully the socket is closed.
        self._under_way: dict[int, tuple[socket.socket, str, float]] = {}

    def began(self, connection: socket.socket, host: str) -> None:
        """A connection was accepted from an address."""
        descriptor = connection.fileno()
        self._under_way.pop(descriptor, None)  # of an earlier connection
        if len(self._under_way) >= self._most:
            self._make_room()
        self._under_way[descriptor] = (connection, peer_of(host), self._clock())

    def ended(self, descriptor: int) -> None:
        """A handshake has succeeded."""
        self._under_way.pop(descriptor, None)

    def expire(self, now: float) -> None:
        """Give up those that take too long."""
        for descriptor, (_, _, since) in list(self._under_way.items()):
            if now - since < self._limit_s:
                return
            self._give_up(descriptor, "slow")  # guard: http-handshakes-late

    def _make_room(self) -> None:
        for descriptor, (connection, _, _) in list(self._under_way.items()):
            if connection.fileno() < 0:
                del self._under_way[descriptor]
        if len(self._under_way) >= self._most:  # guard: http-handshakes-bounded
            peers = Counter(peer for _, peer, _ in self._under_way.values())
            largest = max(peers, key=peers.__getitem__)
            self._give_up(next(one for one, (_, peer, _) in self._under_way.items() if peer == largest), "crowded")

    def _give_up(self, descriptor: int, reason: str) -> None:
        connection, _, _ = self._under_way.pop(descriptor)
        if connection.fileno() >= 0:
            self._closed(reason)
            with suppress(OSError):  # the client has gone, and the loop does not know yet
                connection.shutdown(socket.SHUT_RDWR)


class Listener(socket.socket):
    """A listening socket that tells of every connection that it accepts.

    Args:
        listening: whose place it takes.
        handshakes: told.
    """

    def __init__(self, listening: socket.socket, handshakes: Handshakes) -> None:
        super().__init__(fileno=listening.detach())
        self._handshakes = handshakes

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """As `socket.accept`."""
        connection, address = super().accept()
        self._handshakes.began(connection, str(address[0]))
        return connection, address
