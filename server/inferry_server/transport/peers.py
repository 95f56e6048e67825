"""Bounds the connections of one peer from outside of gRPC, which bounds only those of all peers together.

gRPC neither tells which connections it has nor refuses one by its address. The Linux kernel tells both who is
connected to a port and which of this process' descriptors a connection is. So a look, now and then, counts the
connections of each peer, and cuts off those that are too many; to gRPC it seems that their clients have gone.
"""

import logging
import os
import re
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import unquote

from inferry_server.addresses import Address, AnyAddress
from inferry_server.transport.connections import TABLES, pieces, sockets_in_use
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.pacing import Pacing

logger = logging.getLogger(__name__)

_OWN = Path("/proc/self/fd")
_CORES, _LONGEST_S = 3e-4, 5.0  # that looking may take; how far apart looks are at most
_URGENT = 10.0  # times as often, where one peer may have taken what others need
# IPv4 in IPv6, as machines of either byte order write it.
_MAPPED = re.compile(r"0{16}(?:0000FFFF|FFFF0000)([0-9A-F]{8})")
_NETWORK_DIGITS = 16  # of an IPv6 address: whoever has one has all addresses of its network (/64)


def peer_bound(options: TransportOptions, address: AnyAddress, told: Callable[[int], object]) -> "PeerBound | None":
    """What bounds the peers of a port; None where nothing does.

    Args:
        options: say how many connections one peer may have.
        address: where this process listens. A Unix domain socket has no peers with addresses.
        told: as that of `PeerBound`.
    """
    if not isinstance(address, Address) or options.max_connections_per_peer >= options.max_connections:
        return None
    spare = (options.max_connections - options.max_connections_per_peer) // 4
    return PeerBound(address.port, options.max_connections_per_peer, told, spare=spare)


class PeerBound:
    """Cuts off the newest connections of peers that have too many. `look` is called by one thread.

    Between two looks there may be seconds, in which one peer could take all connections. So looks are ten times as
    frequent after one that has cut off a peer, which may come again, and once so many sockets have come since the last
    look that one peer could have too many.

    A peer is an IPv4 address, or a network of IPv6 addresses. On a system without the kernel's tables nothing is done.

    Args:
        port: where this process listens already.
        most: connections that one peer may have.
        told: called with the number of connections that a look has cut off, if there are any.
        tables: of the kernel, for IPv4 and IPv6.
        spare: connections beyond `most` that a peer may have for some seconds: others have enough left.
        count: tells how many sockets there are, other ports' among them.
        clock: monotonic seconds.
        cpu_clock: seconds for which the calling thread has had a core.
    """

    def __init__(
        self,
        port: int,
        most: int,
        told: Callable[[int], object],
        tables: Sequence[Path] = TABLES,
        *,
        spare: int = 0,
        count: Callable[[], int] = sockets_in_use,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._port = port
        self._most = most
        self._told = told
        self._tables = [table for table in tables if table.exists()]
        self._pacing = Pacing(_CORES, _LONGEST_S, clock=clock, cpu_clock=cpu_clock)
        self._spare = spare
        self._count = count
        self._known: Collection[int] = ()  # sockets that the last look has found
        self._fewest = self._largest = 0  # sockets since the last look, and connections that it has found of one peer
        self._cuts = False  # whether the last look has cut off somebody
        self._blind = False  # whether it failed

    def look(self) -> None:
        """Look, unless it is too early: looking takes longer the more connections there are.

        Where this process has no descriptor left to look with, it looks the next time.
        """
        pacing = self._pacing
        try:
            if pacing.is_due() or (self._is_urgent() and pacing.is_due(times=_URGENT)):  # guard: peers-looked-at-seldom
                with pacing.work():
                    self._look()
        except OSError as error:  # the caller has more to look at
            if not self._blind:
                logger.warning("the connections of each peer cannot be counted now: %s", error)
            self._blind = True
        else:
            self._blind = False

    def _is_urgent(self) -> bool:
        """Whether one peer may have too many by now, if all sockets that have come are its."""
        count = self._count()
        self._fewest = min(self._fewest, count)  # else sockets that go would hide those that come
        return self._cuts or self._largest + count - self._fewest > self._most + self._spare  # guard: peers-urgent

    def _look(self) -> None:
        self._fewest = self._count()  # first: sockets that come meanwhile may not be in the tables
        self._cuts = False
        peers = {number: peer for table in self._tables for number, peer in established(table, self._port)}
        if beyond(peers, self._most, self._known):
            own = own_sockets()
            mine = {number: peer for number, peer in peers.items() if number in own}
            count = sum(cut_off(own[number], number) for number in beyond(mine, self._most, self._known))
            if count:
                self._cuts = True  # guard: peers-come-again
                self._told(count)
        self._largest = min(self._most, max(Counter(peers.values()).values(), default=0))
        self._known = peers.keys()


def beyond(peers: Mapping[int, str], most: int, known: Collection[int] = ()) -> list[int]:
    """The sockets that each peer has beyond the most: new ones sooner than known ones, then those with higher numbers.

    Linux numbers sockets in the order in which they are made, but each core counts for itself.

    Args:
        peers: by the number of each socket.
        most: of one peer.
        known: sockets that were there before.
    """

    def age(number: int) -> tuple[bool, int]:
        return number not in known, number

    by_peer: dict[str, list[int]] = {}
    for number, peer in peers.items():
        by_peer.setdefault(peer, []).append(number)
    return [
        number for numbers in by_peer.values() for number in sorted(numbers, key=age)[most:]
    ]  # guard: peers-bounded


def established(table: Path, port: int) -> Iterator[tuple[int, str]]:
    """The connections to a local port in one of the kernel's tables.

    Args:
        table: as `/proc/net/tcp` shows it, see `count_sockets`.
        port: the local one.

    Yields:
        The number of the socket, and its peer. One that nobody has accepted yet has no number, and is passed over.
    """
    of_port = re.compile(rb":%04X (\w+):\w+ 01 (?:\S+ +){5}(\d+) " % port)
    for lines in pieces(table):
        for address, number in of_port.findall(lines):
            if number != b"0":
                yield int(number), peer_of(address.decode())


def peer_of(address: str) -> str:
    """Whom an address belongs to, as the kernel's tables write it: an IPv4 address, or a network of IPv6."""
    if (mapped := _MAPPED.fullmatch(address)) is not None:
        return mapped[1]
    return address if len(address) <= _NETWORK_DIGITS else address[:_NETWORK_DIGITS]


def own_sockets() -> dict[int, int]:
    """This process' sockets by their numbers: the descriptor of each."""
    sockets = {}
    for name in os.listdir(_OWN):  # noqa: PTH208 - names alone, of ten thousand
        with suppress(OSError):  # it has been closed meanwhile
            facts = os.fstat(int(name))
            if stat.S_ISSOCK(facts.st_mode):
                sockets[facts.st_ino] = int(name)
    return sockets


def cut_off(descriptor: int, number: int) -> bool:
    """End a connection that other code of this process holds, which then finds that the client has gone.

    Args:
        descriptor: of its socket, unless that has been closed.
        number: of its socket.

    Returns:
        Whether it was still there.
    """
    try:
        copy = os.dup(descriptor)  # it stays this socket's, even if the other is closed and given to a new socket
    except OSError:
        return False
    if os.fstat(copy).st_ino != number:  # guard: peers-own-socket
        os.close(copy)
        return False
    with socket.socket(fileno=copy) as connection, suppress(OSError):  # the client may have gone by itself
        connection.shutdown(socket.SHUT_RDWR)
        return True
    return False


def sockets_of_clients(clients: Collection[str], port: int) -> Mapping[str, Mapping[int, int]]:
    """This process' sockets of the connections that some clients have to a port of it.

    An address and a port may be another client's a moment later, and another connection's to another address of this
    machine at the same time.

    Args:
        clients: as gRPC names the peer of a call, `ipv4:10.0.0.1:4711`; other kinds than IPv4 and IPv6 are left out.
        port: the local one.

    Returns:
        For each client that has any, the descriptors of its sockets, by their numbers.
    """
    wanted: dict[_End, list[str]] = {}
    for client in clients:
        if (end := _end_named(client)) is not None:
            wanted.setdefault(end, []).append(client)
    found: dict[str, dict[int, int]] = {}
    if wanted and _OWN.exists():
        for number, descriptor in own_sockets().items():
            end = _end_at(descriptor, port)
            for client in () if end is None else wanted.get(end, ()):
                found.setdefault(client, {})[number] = descriptor
    return found


_End = tuple[IPv4Address | IPv6Address, int]
"""Of a connection: address and port."""


def _end_named(peer: str) -> _End | None:
    """A client's end of its connection, as gRPC writes it; None where it has no address."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    host, _, port = rest.rpartition(":")
    return _end(host.strip("[]"), int(port))


def _end_at(descriptor: int, port: int) -> _End | None:
    """The client's end of a connection to a local port; None where the descriptor is none, or has been closed."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != port:
            return None
        host, own_port = connection.getpeername()[:2]
        return _end(host, own_port)
    except OSError:  # nobody is connected: it listens
        return None
    finally:
        connection.detach()  # gRPC owns the descriptor, and goes on using it


def _end(host: str, port: int) -> _End:
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address, port
