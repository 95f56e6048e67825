"""Whether the certificates that clients have shown still hold: a handshake verifies once, connections last for long."""

import hashlib
import logging
import math
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from inferry_server.errors import UnauthenticatedError
from inferry_server.security.certificate_dates import earliest_end
from inferry_server.security.certificate_names import AuthContext, names_of
from inferry_server.security.pem import certificates_in

logger = logging.getLogger(__name__)

T = TypeVar("T")
Connection = tuple[bytes, ...] | None
"""What a connection is known by (`known_by`); None where it cannot be known again."""

_CERTIFICATE, _CHAIN = "x509_pem_cert", "x509_pem_cert_chain"  # a session that is taken up again has them too
_OVER_IP = b"ipv"
_MOST_CERTIFICATES = 4096  # most servers have a few clients
_MOST_CONNECTIONS = 16_384  # more than most servers take
_HOLDS_S = 1.0  # what was read of a connection, until it is read again


class Authority(Protocol):
    """As `ClientAuthority`."""

    def vouches_for(self, chain: Sequence[bytes]) -> bool:
        """Whether it has issued a certificate: DER of that, then of those between them."""


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What was found out about a certificate, once.

    Attributes:
        end: in seconds since the epoch.
        is_issued: whether the authorities of now vouch for it.
        names: in the words of policies.
    """

    end: float
    is_issued: bool
    names: Sequence[str]


class _Found:
    """What was found out since the authorities were exchanged.

    Attributes:
        authority: verifies what other authorities have verified; None: they were not exchanged since the start.
        certificates: by their PEM; those that are not vouched for by a digest of it and of what was sent with it.
        connections: since when and until when each may be used without reading its certificate.
    """

    __slots__ = ("authority", "certificates", "connections")

    def __init__(self, authority: Authority | None) -> None:
        self.authority = authority
        self.certificates: dict[bytes, _Certificate] = {}
        self.connections: OrderedDict[Connection, tuple[float, float]] = OrderedDict()


class ClientCertificates:
    """Refuses calls of clients whose certificate has ended since it was verified, or whose authority has gone.

    gRPC takes microseconds to tell which certificate a connection has, and a fraction of one to tell whom it leads to.
    So the certificate is read once a second for each connection, and again when the authorities are exchanged. Roles
    are never decided by what was read before: `names` reads the certificate.

    One thread at a time lets calls in (`holds`, `check`, `names`, `begin_review`); any thread may call the rest.
    Nothing blocks; the first call with a certificate after an exchange takes a millisecond to verify it.

    Args:
        wall_clock: seconds since the epoch.

    Attributes:
        connections: how many have had a call.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._found = self._reviewed = _Found(None)
        self._next_end = math.inf
        self._seen: OrderedDict[Connection, None] = OrderedDict()
        self.connections = 0

    def exchange(self, authority: Authority) -> None:
        """Take certificates of other authorities from now on: what was verified before is verified again."""
        self._found = _Found(authority)

    def holds(self, connection: Connection) -> bool:
        """Whether the certificate of a connection was read within the last second, and may be used until now."""
        known = self._found.connections.get(connection)
        return known is not None and known[0] <= self._wall_clock() < known[1]  # guard: connection-holds-until

    def check(self, connection: Connection, auth_context: AuthContext) -> None:
        """Return if a call may be answered.

        Args:
            connection: whose certificate need not be read again for a second, if it holds.
            auth_context: what gRPC tells of it.

        Raises:
            UnauthenticatedError: the client's certificate has ended, or the authorities of now do not vouch for it.
        """
        found, now = self._found, self._wall_clock()
        until = now + _HOLDS_S
        for pem in auth_context.get(_CERTIFICATE, ()):
            certificate = self._certificate(found, pem, auth_context)
            if now >= certificate.end:  # guard: client-certificate-ended
                raise UnauthenticatedError("the client's certificate has ended; connect again with one that is valid")
            if not certificate.is_issued:  # guard: client-authority-gone
                raise UnauthenticatedError(
                    "the authorities that are trusted now do not vouch for the client's certificate; connect again "
                    "with one of theirs"
                )
            self._next_end = min(self._next_end, certificate.end)
            until = min(until, certificate.end)
        if connection is not None:
            self._remember(found, connection, now, until)

    def names(self, auth_context: AuthContext) -> Sequence[str]:
        """What the certificate of a connection says, in the words of policies; nothing where there is none."""
        for pem in auth_context.get(_CERTIFICATE, ()):
            return self._certificate(self._found, pem, auth_context).names
        return ()

    def is_due(self) -> bool:
        """Whether open calls are to be checked again: a certificate has ended, or the authorities were exchanged."""
        return self._found is not self._reviewed or self._wall_clock() >= self._next_end

    def begin_review(self) -> None:
        """All open calls are checked again now."""
        found, now = self._found, self._wall_clock()
        self._reviewed = found
        self._next_end = min((one.end for one in found.certificates.values() if one.end > now), default=math.inf)

    def _certificate(self, found: _Found, pem: bytes, auth_context: AuthContext) -> _Certificate:
        known = found.certificates.get(pem)
        if known is not None:
            return known
        chain = (pem, *auth_context.get(_CHAIN, ()))
        refused = hashlib.sha256(b"".join(chain)).digest()  # with others sent beside it, it may be vouched for
        known = found.certificates.get(refused)
        if known is None:
            if len(found.certificates) >= _MOST_CERTIFICATES:
                found.certificates.clear()
                found.connections.clear()  # which hold by certificates that are known, so that reviews know their ends
            known = _read(found.authority, chain, auth_context)
            found.certificates[pem if known.is_issued else refused] = known  # guard: certificate-with-chain
        return known

    def _remember(self, found: _Found, connection: Connection, now: float, until: float) -> None:
        _put(found.connections, connection, (now, until))
        if connection not in self._seen:
            self.connections += 1
        _put(self._seen, connection, None)


def known_by(peer: bytes, names: Sequence[bytes] | None) -> Connection:
    """What a connection is known by: the client's address and port, and what its certificate names.

    An address and a port can be another connection's a moment later, or at another address of this machine. With the
    same names it is the same client.

    Args:
        peer: as gRPC writes it; those of Unix domain sockets are all the same.
        names: `peer_identities` of gRPC.
    """
    return (peer, *names) if names and peer.startswith(_OVER_IP) else None


def end_of_peer(certificate: Mapping[str, Any] | None) -> float:
    """When what `ssl.SSLSocket.getpeercert` tells of ends, in seconds since the epoch; never where there is nothing."""
    return ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else math.inf


def _read(authority: Authority | None, chain: Sequence[bytes], auth_context: AuthContext) -> _Certificate:
    end, names = earliest_end(chain[0]), names_of(auth_context)
    is_issued = authority is None or authority.vouches_for([der for pem in chain for der in certificates_in(pem)])
    if not is_issued:
        logger.info("a client's certificate is not of an authority that is trusted now: %r", names)
    return _Certificate(math.inf if end is None else end, is_issued, names)


def _put(table: "OrderedDict[Connection, T]", key: Connection, value: T) -> None:
    """Have the newest in the table, and no more than are bounded."""
    table.pop(key, None)
    table[key] = value
    while len(table) > _MOST_CONNECTIONS:  # guard: connections-known-bounded
        table.popitem(last=False)
