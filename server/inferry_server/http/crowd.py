"""How many HTTP connections there may be, of everybody and of one peer, and which of them makes room for another."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

FOR_HEALTH = 16
"""Connections above the limit for health checks, where no other one makes room."""

_NETWORK_BITS = 64  # of an IPv6 address: whoever has one has all addresses of its network


class Member(Protocol):
    """A connection. For the loop's thread.

    Attributes:
        peer: whom it comes from.
        standing: the lower, the sooner it makes room; None while its client waits for a reply that is being made.
    """

    peer: str

    @property
    def standing(self) -> tuple[int, float] | None:
        """As the attribute says."""

    def make_room(self) -> None:
        """Close it at once."""


Members = Mapping[Member, None]


class Crowd:
    """The connections of one port. For the loop's thread.

    A connection that is too many is taken where another one can make room: one of the same peer if that has too many,
    else one of the peer with the most connections that has one to spare. So whoever takes all of them makes room for
    everybody else, and a proxy that speaks for all clients loses only what it does not use.

    Args:
        most: connections at a time.
        most_of_peer: of them, of one peer: an IPv4 address, or a network of IPv6 addresses.
        closed: told `crowded` for each connection that makes room, or is not taken.
    """

    def __init__(self, most: int, most_of_peer: int, closed: Callable[[str], object]) -> None:
        self.most = most
        self.most_of_peer = most_of_peer
        self._closed = closed
        self._members: dict[str, dict[Member, None]] = {}
        self._count = 0

    @property
    def refusal(self) -> str:
        """What a client is told that may ask for health alone."""
        return (
            f"there are as many connections as this server takes: {self.most} (setting http_max_connections), "
            f"{self.most_of_peer} of one address (http_max_connections_per_peer), and none of them is idle; ask again"
        )

    def enter(self, one: Member) -> bool:
        """Take a connection, and have another one make room if there are too many.

        Returns:
            Whether it may ask for everything; if not, only for health.
        """
        own = self._members.setdefault(one.peer, {})
        own[one] = None
        self._count += 1
        while (crowded := self._crowded(own)) and (chosen := _first_to_leave(crowded, one)) is not None:
            self._close(chosen)
        if not crowded:
            return True
        if self._count > self.most + FOR_HEALTH or len(own) > self.most_of_peer + FOR_HEALTH:
            self._close(one)
        return False

    def leave(self, one: Member) -> None:
        """Forget a connection that has ended, if it is known."""
        own = self._members.get(one.peer, {})
        if one in own:
            del own[one]
            self._count -= 1
            if not own:
                del self._members[one.peer]

    def _crowded(self, own: Members) -> Sequence[Members]:
        """Peers of which a connection has to make room, in the order in which they are asked; empty: none has to."""
        if len(own) > self.most_of_peer:  # guard: http-peers-bounded
            return (own,)
        if self._count > self.most:  # guard: http-connections-bounded
            return sorted(self._members.values(), key=len, reverse=True)  # guard: http-crowd-fair
        return ()

    def _close(self, one: Member) -> None:
        self.leave(one)
        self._closed("crowded")
        one.make_room()


def peer_of(host: str) -> str:
    """Whom an address belongs to: an IPv4 address to itself, one of IPv6 to its network; other texts as they are."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS))


def _first_to_leave(peers: Sequence[Members], newcomer: Member) -> Member | None:
    """The connection that stands lowest, of the first peer that has one to spare."""
    for members in peers:
        chosen, lowest = None, None
        for one in members:
            standing = None if one is newcomer else one.standing
            if standing is not None and (lowest is None or standing < lowest):
                chosen, lowest = one, standing
        if chosen is not None:
            return chosen
    return None
