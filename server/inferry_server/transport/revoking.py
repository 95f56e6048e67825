"""Ends calls whose callers may no longer make them: streams, and unary calls whose request has not come."""

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from inferry_server.errors import ServingError
from inferry_server.rpc.router import Router
from inferry_server.rpc.statuses import Status, status_of
from inferry_server.security.certificate_names import AuthContext
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.security.standing import Standing
from inferry_server.trace import Metadata


class OpenCall(Protocol):
    """A call as its transport has it."""

    method: str
    metadata: Metadata

    def certificate_names(self) -> Sequence[str]:
        """What its client's verified certificate says."""

    def auth_context(self) -> AuthContext:
        """What gRPC tells of its connection; called only where clients show certificates."""

    def revoke(self, status: Status) -> None:
        """End it with a status, and cancel what it waits for."""


C = TypeVar("C", bound=OpenCall)


class Revoking:
    """Ends calls whose token was revoked or has expired, or whose caller has lost the role, or its certificate.

    Not each message is checked: all open calls are, when the policy changes or a token or a certificate expires. One
    thread calls `is_due`; the thread that lets calls in calls the rest, so that no call is missed between being let in
    and being known.

    Args:
        router: decides, and knows the methods.
        certificates: say whether those of clients still hold; None: clients show none.

    Attributes:
        reviews: how often open calls had to be checked.
    """

    def __init__(self, router: Router, certificates: ClientCertificates | None = None) -> None:
        self._router = router
        self._certificates = certificates
        self._standing = None if router.access is None else Standing(router.access)
        self.reviews = 0

    def is_due(self) -> bool:
        """Whether open calls must be checked now; called every quarter of a second or so."""
        is_due = self._standing is not None and self._standing.has_changed()
        if self._certificates is not None and self._certificates.is_due():  # guard: certificates-reviewed
            is_due = True
        self.reviews += is_due
        return is_due

    def begin(self) -> None:
        """Note that all open calls are checked now, by one or more calls of `review`."""
        if self._certificates is not None:
            self._certificates.begin_review()

    def review(self, calls: Collection[C]) -> Sequence[C]:
        """End those whose callers may not make them any more, and return them."""
        revoked = []
        for call in tuple(calls):
            status = self._refusal_of(call)
            if status is not None:
                call.revoke(status)  # guard: calls-revoked
                revoked.append(call)
        return revoked

    def _refusal_of(self, call: OpenCall) -> Status | None:
        if self._certificates is not None:
            try:
                self._certificates.check(call.auth_context())
            except ServingError as error:
                return status_of(error)
        return self._router.refuses_still(call.method, call.metadata, call.certificate_names)
