"""Calls that the completion queue's transport refuses before it reads their requests."""

from typing import Any

from inferry_server.errors import ServingError
from inferry_server.rpc.router import UNKNOWN_METHOD, Router
from inferry_server.rpc.statuses import Status, shed, unknown_method
from inferry_server.security.access import Access
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.transport.between_events import Shedding
from inferry_server.transport.core_layer import auth_context, peer_identities, send_status


class UnreadCalls:
    """Decides about new calls, and ends those that it refuses. Called by the reading thread alone; nothing blocks.

    Args:
        router: knows the methods, and counts what is refused.
        certificates: say whether those of clients are still valid; None: clients' certificates are not checked again.
    """

    def __init__(self, router: Router, certificates: ClientCertificates | None) -> None:
        self._router = router
        self._certificates = certificates

    def refuse_method(self, event: Any, path: str) -> None:
        """Refuse a call of a method that no service has."""
        status = unknown_method(path)
        self._router.received(UNKNOWN_METHOD, ()).ended(status)
        _end(event, status)

    def refuse_connection(self, event: Any, path: str, certificates: ClientCertificates) -> bool:
        """Refuse a call if the certificate of its connection's client does not hold any more.

        Returns:
            Whether it was refused.
        """
        call = event.call
        peer = call.peer()
        if certificates.holds(peer, peer_identities(call)):  # guard: cost-connection-known
            return False
        status = self._router.refuses_connection(path, certificates, auth_context(call), peer)
        if status is None:
            return False
        _end(event, status)
        return True

    def refuse_caller(self, event: Any, path: str, access: Access) -> bool:
        """Refuse a call if the access policy does not let its caller make it.

        Returns:
            Whether it was refused.
        """
        call, certificates = event.call, self._certificates
        try:  # as `Router.refuses`, with a call of a function less
            if certificates is None:
                access.check(path, event.invocation_metadata, tuple)
            else:  # a closure is called in less time than a method with its argument
                access.check(path, event.invocation_metadata, lambda: certificates.names(auth_context(call)))
        except ServingError as error:
            _end(event, self._router.refused(path, error))
            return True
        return False

    def shed(self, event: Any, path: str, shedding: Shedding) -> None:
        """Refuse a call for load, at half of what it costs to read its request and refuse it then."""
        status = shed(shedding.retry_after_s)
        self._router.shed(path, status)
        shedding.count()
        _end(event, status)


def _end(event: Any, status: Status) -> None:
    send_status(event.call, status, _ignore, first=True, close_watched=False)


def _ignore(event: Any) -> None:
    """Nothing is left to do."""
