"""Whether clients' certificates are still valid: a handshake verifies them once, and connections last for long."""

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
_CERTIFICATE, _CHAIN = b"x509_pem_cert", b"x509_pem_cert_chain"  # gRPC tells both of a resumed TLS session too
_IDENTITIES = (b"x509_subject_alternative_name", b"x509_common_name")  # gRPC takes the first that a certificate has
_OVER_IP = b"ipv"
_MOST_CERTIFICATES = 4096  # most servers have a few clients
_MOST_BYTES = 8 << 20  # of their PEM: what is kept of the names takes up to eleven times as much
_MOST_CONNECTIONS = 16_384  # more than most servers take
_HOLDS_S = 1.0  # until the certificate of a connection is read again
_TAIL = 90  # last bytes of a PEM, by which it is looked up before all of it is compared
_NO_NAMES = frozenset[str]()


class Authority(Protocol):
    """Verifies certificates, as `ClientAuthority` does."""

    def vouches_for(self, chain: Sequence[bytes]) -> bool:
        """Whether it has issued a certificate, given the DER of that and then of those between the two."""


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What is known of a certificate.

    Attributes:
        end: when it expires, in seconds since the epoch.
        is_issued: whether the authorities that are trusted now have issued it.
        names: as access policies write them.
        identities: as `peer_identities` of gRPC tells them.
        pem: the whole certificate.
        digest: of `pem`.
    """

    end: float
    is_issued: bool
    names: frozenset[str]
    identities: Sequence[bytes]
    pem: bytes
    digest: bytes


class _Found:
    """What is known since the authorities were last exchanged.

    Attributes:
        authority: verifies certificates that earlier authorities have verified; None: there were no earlier ones.
        certificates: by the last bytes of their PEM, which belong to the signature: hashing all of it takes longer.
            Those that the authority has not issued are known by a digest of their PEM and of the chain that came too.
        size: bytes of the PEM of all these certificates.
        connections: by a client's address and port, the certificate of the connection, and from when until when calls
            may use it without reading the certificate again. All connections of a client share one certificate here.
    """

    __slots__ = ("authority", "certificates", "connections", "size")

    def __init__(self, authority: Authority | None) -> None:
        self.authority = authority
        self.certificates: dict[bytes, _Certificate] = {}
        self.size = 0
        self.connections: OrderedDict[bytes, tuple[_Certificate, float, float]] = OrderedDict()

    def add(self, key: bytes, certificate: _Certificate) -> None:
        """Remember a certificate. If there are too many, or too large ones, all others are forgotten first."""
        size = len(certificate.pem)
        is_full = len(self.certificates) >= _MOST_CERTIFICATES or self.size + size > _MOST_BYTES
        if is_full:  # guard: certificates-bounded
            self.certificates.clear()
            self.connections.clear()  # reviews know only the ends of certificates that are known
            self.size = 0
        self.certificates[key] = certificate
        self.size += size


class ClientCertificates:
    """Refuses calls of clients whose certificate has expired since it was verified, or lost its authority.

    gRPC takes a microsecond or two to tell a connection's certificate, and a fraction of one to tell its client's
    address. So the certificate of each connection is read once a second, and again when the authorities are exchanged.
    Roles are never decided by an earlier reading: `names` reads the certificate, and checks that it is still valid.

    The thread that lets calls in, one at a time, calls `holds`, `check`, `names` and `begin_review`; any thread may
    call the rest. No method blocks, but verifying a certificate for the first time after an exchange takes a
    millisecond.

    Args:
        wall_clock: tells seconds since the epoch.

    Attributes:
        connections: how many connections have had a call.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._found = self._reviewed = _Found(None)
        self._next_end = math.inf
        self._seen: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()  # addresses, and digests of certificates
        self.connections = 0

    def exchange(self, authority: Authority) -> None:
        """Trust another authority from now on: certificates that were verified before are verified again."""
        self._found = _Found(authority)

    def holds(self, peer: bytes, identities: Sequence[bytes] | None) -> bool:
        """Whether the certificate of a connection was read within the last second, and has not expired since.

        A connection is recognised by its client's address and port together with the names in its certificate. Another
        connection may have the same address and port a moment later, or at the same time to another address of this
        machine: with the same names it passes for the same client here. Roles are decided by `names`, which reads the
        certificate itself.

        Args:
            peer: the client, as gRPC writes it.
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
        """Return if the certificate of a call's connection is valid.

        Args:
            auth_context: what gRPC tells of the connection.
            peer: the client, for which `holds` is then true for a second; empty for a call that was let in before.

        Raises:
            UnauthenticatedError: the certificate has expired, or no authority that is trusted now has issued it.
        """
        found, now = self._found, self._wall_clock()
        for pem in auth_context.get(_CERTIFICATE, ()):  # one, or none
            certificate = self._certificate(found, pem, auth_context)
            if now >= certificate.end:  # guard: client-certificate-ended
                raise _refusal(certificate)
            if not certificate.is_issued:  # guard: client-authority-gone
                raise _refusal(certificate)
            self._next_end = min(self._next_end, certificate.end)
            if peer.startswith(_OVER_IP):  # all clients of a Unix domain socket have one name
                self._remember(found, peer, certificate, now)

    def names(self, auth_context: AuthContext) -> frozenset[str]:
        """The names in the certificate of a connection, as access policies write them; none without a certificate.

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
        """Whether open calls must be checked again: a certificate has expired, or the authorities were exchanged."""
        return self._found is not self._reviewed or self._wall_clock() >= self._next_end

    def begin_review(self) -> None:
        """Note that the caller checks all open calls again now."""
        found, now = self._found, self._wall_clock()
        self._reviewed = found
        self._next_end = min((one.end for one in found.certificates.values() if one.end > now), default=math.inf)

    def _certificate(self, found: _Found, pem: bytes, auth_context: AuthContext) -> _Certificate:
        known = found.certificates.get(pem[-_TAIL:])
        if known is not None and known.pem == pem:
            return known
        chain = (pem, *auth_context.get(_CHAIN, ()))
        refused = hashlib.sha256(b"".join(chain)).digest()  # another chain may lead to an authority
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
    """When a certificate from `ssl.SSLSocket.getpeercert` expires, in seconds since the epoch; infinite without one."""
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
    """Put an entry at the end of a table, and drop the oldest beyond `_MOST_CONNECTIONS`."""
    table.pop(key, None)
    table[key] = value
    while len(table) > _MOST_CONNECTIONS:  # guard: connections-known-bounded
        table.popitem(last=False)
