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

K = TypeVar("K")
T = TypeVar("T")
_CERTIFICATE, _CHAIN = b"x509_pem_cert", b"x509_pem_cert_chain"  # a session that is taken up again has them too
_IDENTITIES = (b"x509_subject_alternative_name", b"x509_common_name")  # of which gRPC takes the first that there is
_OVER_IP = b"ipv"
_MOST_CERTIFICATES = 4096  # most servers have a few clients
_MOST_BYTES = 8 << 20  # of their PEM: names take up to eleven times as much, one of them may have a thousand
_MOST_CONNECTIONS = 16_384  # more than most servers take
_HOLDS_S = 1.0  # what was read of a connection, until it is read again
_TAIL = 90  # bytes of a certificate's PEM that it is looked up by; then all of it is compared
_NO_NAMES = frozenset[str]()


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
        identities: as `peer_identities` of gRPC tells them.
        pem: all of it.
        digest: of that.
    """

    end: float
    is_issued: bool
    names: frozenset[str]
    identities: Sequence[bytes]
    pem: bytes
    digest: bytes


class _Found:
    """What was found out since the authorities were exchanged.

    Attributes:
        authority: verifies what other authorities have verified; None: they were not exchanged since the start.
        certificates: by the end of their PEM, which is signature: to hash all of it takes longer. Those that are not
            vouched for by a digest of it and of what was sent with it.
        size: of the PEM of these certificates, in bytes.
        connections: by their clients' addresses and ports, the certificate of each, and since when and until when it
            may be used without reading that. A certificate's names are kept once, however many connections it has.
    """

    __slots__ = ("authority", "certificates", "connections", "size")

    def __init__(self, authority: Authority | None) -> None:
        self.authority = authority
        self.certificates: dict[bytes, _Certificate] = {}
        self.size = 0
        self.connections: OrderedDict[bytes, tuple[_Certificate, float, float]] = OrderedDict()

    def add(self, key: bytes, certificate: _Certificate) -> None:
        """Know a certificate from now on; where there are too many, or too large ones, all others are forgotten."""
        size = len(certificate.pem)
        is_full = len(self.certificates) >= _MOST_CERTIFICATES or self.size + size > _MOST_BYTES
        if is_full:  # guard: certificates-bounded
            self.certificates.clear()
            self.connections.clear()  # which hold by certificates that are known, so that reviews know their ends
            self.size = 0
        self.certificates[key] = certificate
        self.size += size


class ClientCertificates:
    """Refuses calls of clients whose certificate has ended since it was verified, or whose authority has gone.

    gRPC takes a microsecond or two to tell which certificate a connection has, and a fraction of one to tell whom it
    leads to. So the certificate is read once a second for each connection, and again when the authorities are
    exchanged. Roles are never decided by what was read before: `names` reads the certificate, and sees whether it
    still holds.

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
        self._seen: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()  # addresses, and digests of certificates
        self.connections = 0

    def exchange(self, authority: Authority) -> None:
        """Take certificates of other authorities from now on: what was verified before is verified again."""
        self._found = _Found(authority)

    def holds(self, peer: bytes, identities: Sequence[bytes] | None) -> bool:
        """Whether the certificate of a connection was read within the last second, and may be used until now.

        A connection is known by its client's address and port, and by what its certificate names. An address and a port
        can be another connection's a moment later, or at another address of this machine: with the same names it is the
        same client, unless roles are asked about. For those the certificate itself is read.

        Args:
            peer: as gRPC writes it.
            identities: `peer_identities` of gRPC.
        """
        known = self._found.connections.get(peer)
        if known is None:
            return False
        certificate, since, until = known
        if certificate.identities != identities:  # guard: connection-of-another
            return False
        return since <= self._wall_clock() < until  # guard: connection-holds-until

    def check(self, auth_context: AuthContext, peer: bytes = b"") -> None:
        """Return if a call may be answered.

        Args:
            auth_context: what gRPC tells of its connection.
            peer: whose certificate need not be read again for a second, if it holds.

        Raises:
            UnauthenticatedError: the client's certificate has ended, or the authorities of now do not vouch for it.
        """
        found, now = self._found, self._wall_clock()
        for pem in auth_context.get(_CERTIFICATE, ()):  # one, or none
            certificate = self._certificate(found, pem, auth_context)
            if now >= certificate.end:  # guard: client-certificate-ended
                raise _refusal(certificate)
            if not certificate.is_issued:  # guard: client-authority-gone
                raise _refusal(certificate)
            self._next_end = min(self._next_end, certificate.end)
            if peer.startswith(_OVER_IP):  # those of Unix domain sockets are all the same
                self._remember(found, peer, certificate, now)

    def names(self, auth_context: AuthContext) -> frozenset[str]:
        """What the certificate of a connection says, in the words of policies; nothing where there is none.

        Raises:
            UnauthenticatedError: as `check` does.
        """
        found = self._found
        for pem in auth_context.get(_CERTIFICATE, ()):  # one, or none
            certificate = found.certificates.get(pem[-_TAIL:])
            if certificate is None or certificate.pem != pem:  # guard: certificate-itself
                certificate = self._certificate(found, pem, auth_context)
            if not certificate.is_issued or self._wall_clock() >= certificate.end:  # guard: names-of-valid
                raise _refusal(certificate)
            return certificate.names
        return _NO_NAMES

    def is_due(self) -> bool:
        """Whether open calls are to be checked again: a certificate has ended, or the authorities were exchanged."""
        return self._found is not self._reviewed or self._wall_clock() >= self._next_end

    def begin_review(self) -> None:
        """All open calls are checked again now."""
        found, now = self._found, self._wall_clock()
        self._reviewed = found
        self._next_end = min((one.end for one in found.certificates.values() if one.end > now), default=math.inf)

    def _certificate(self, found: _Found, pem: bytes, auth_context: AuthContext) -> _Certificate:
        known = found.certificates.get(pem[-_TAIL:])
        if known is not None and known.pem == pem:
            return known
        chain = (pem, *auth_context.get(_CHAIN, ()))
        refused = hashlib.sha256(b"".join(chain)).digest()  # with others sent beside it, it may be vouched for
        known = found.certificates.get(refused)
        if known is None:
            known = _read(found.authority, chain, auth_context)
            found.add(pem[-_TAIL:] if known.is_issued else refused, known)  # guard: certificate-with-chain
        return known

    def _remember(self, found: _Found, peer: bytes, certificate: _Certificate, now: float) -> None:
        _put(found.connections, peer, (certificate, now, min(now + _HOLDS_S, certificate.end)))
        seen = (peer, certificate.digest)
        if seen not in self._seen:
            self.connections += 1
        _put(self._seen, seen, None)


def end_of_peer(certificate: Mapping[str, Any] | None) -> float:
    """When what `ssl.SSLSocket.getpeercert` tells of ends, in seconds since the epoch; never where there is nothing."""
    return ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else math.inf


def _refusal(certificate: _Certificate) -> UnauthenticatedError:
    if certificate.is_issued:
        return UnauthenticatedError("the client's certificate has ended; connect again with one that is valid")
    return UnauthenticatedError(
        "the authorities that are trusted now do not vouch for the client's certificate; connect again with one "
        "of theirs"
    )


def _read(authority: Authority | None, chain: Sequence[bytes], auth_context: AuthContext) -> _Certificate:
    end, names = earliest_end(chain[0]), names_of(auth_context)
    is_issued = authority is None or authority.vouches_for([der for pem in chain for der in certificates_in(pem)])
    if not is_issued:
        logger.info("a client's certificate is not of an authority that is trusted now: %r", names)
    identities = next(filter(None, (list(auth_context.get(key, ())) for key in _IDENTITIES)), [])
    digest = hashlib.sha256(chain[0]).digest()
    return _Certificate(math.inf if end is None else end, is_issued, frozenset(names), identities, chain[0], digest)


def _put(table: "OrderedDict[K, T]", key: K, value: T) -> None:
    """Have the newest in the table, and no more than are bounded."""
    table.pop(key, None)
    table[key] = value
    while len(table) > _MOST_CONNECTIONS:  # guard: connections-known-bounded
        table.popitem(last=False)
