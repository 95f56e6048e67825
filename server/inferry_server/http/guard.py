"""Who may ask for more than health: no page of another site, and nobody without the certificate or role it takes."""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import grpc

from inferry_proto.services import DIAGNOSTICS
from inferry_server.errors import ServingError
from inferry_server.http.replies import json_reply
from inferry_server.http.statuses import FOREIGN_HOST, http_code
from inferry_server.rpc.statuses import Status, status_of
from inferry_server.security.access import Access, Metadata, Names
from inferry_server.security.hosts import OwnHosts, refusal

Application = Callable[[Any, Any, Any], Awaitable[None]]

_METRICS, _LIVE = "/metrics", "/live"
_EXPLAIN = DIAGNOSTICS["Explain"].path
_HEALTH = ("/livez", "/readyz", "/v2/health/")
_OTHERS = "http"
"""What refusals of other paths are counted under: which paths there are is the caller's invention."""


class Guard:
    """Stands before an application and refuses what it must not be asked. For the loop's thread.

    A browser lets any page post to any server, this machine's own too, and says from which site it comes
    (`Origin`). That must be this server's own: what the request names in `Host`, which is checked first. Health is
    told to everybody: those who probe name what they like.

    Args:
        application: what is guarded.
        needs_certificate: why a client without a certificate is refused; None: it is not. The TLS layer has verified
            those that came.
        open_metrics: whether clients without one may read the metrics all the same.
        hosts: what may be named in `Host`.
        access: decides who may read the metrics, and what the live page shows; None: everybody may. Calls ask it
            where they begin.
        refused: called with what refusals are counted under and the status, for each request that is refused.
    """

    def __init__(
        self,
        application: Application,
        *,
        needs_certificate: str | None,
        open_metrics: bool,
        hosts: OwnHosts,
        access: Access | None = None,
        refused: Callable[[str, Status], object] = lambda *_: None,
    ) -> None:
        self._access = access
        self._application = application
        self._needs_certificate = needs_certificate
        self._open_metrics = open_metrics
        self._hosts = hosts
        self._refused = refused

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        status = self._decide(scope)
        if status is None:
            await self._application(scope, receive, send)
        else:
            await json_reply({"error": status.message}, http_code(status))(scope, receive, send)

    def still_takes(self, scope: Any) -> bool:
        """Whether a reply that goes on for long may: the policy may be another one by now. A refusal is counted."""
        return self._decide(scope) is None

    def tells_reasons(self, scope: Any) -> bool:
        """Whether a client may hear why the server is not ready: reasons name models."""
        return not self._lacks_certificate(scope["state"])  # guard: http-reasons

    def refuses(self, path: str, raw: Sequence[tuple[bytes, bytes]], state: Any) -> Status | None:
        """The status for a request that must not be asked; None for one that may. It is not counted.

        Args:
            path: of the request.
            raw: its headers, names in lower case.
            state: of its connection.
        """
        if path.startswith(_HEALTH):
            return None
        headers = dict(raw)
        host = headers.get(b"host", b"").decode("latin-1").strip()
        if not self._hosts.has(host):  # guard: http-host
            return _denied(refusal(host), FOREIGN_HOST)
        # Not by the whole path: routes take one with a line's end behind it too.
        if path.startswith(_METRICS):
            return self._refuses_metrics(raw, state)
        origin = headers.get(b"origin")
        if origin is not None and not _is_own(origin.decode("latin-1"), host):  # guard: http-origin
            return _denied(f"pages of {origin.decode('latin-1')[:200]} may not ask this server", "foreign_origin")
        if self._lacks_certificate(state):  # guard: http-certificate
            return self._without_certificate()
        if self._access is not None and path.startswith(_LIVE):  # guard: live-access
            return self._access_refusal(partial(self._access.check, _EXPLAIN), raw, state)
        return None

    def _decide(self, scope: Any) -> Status | None:
        path = scope["path"]
        status = self.refuses(path, scope["headers"], scope["state"])
        if status is not None:
            kind = next((known for known in (_METRICS, _LIVE) if path.startswith(known)), _OTHERS)
            self._refused(kind, status)  # guard: http-refused-counted
        return status

    def _refuses_metrics(self, raw: Sequence[tuple[bytes, bytes]], state: Any) -> Status | None:
        if not self._open_metrics and self._lacks_certificate(state):  # guard: metrics-certificate
            return self._without_certificate()
        return None if self._access is None else self._access_refusal(self._access.check_metrics, raw, state)

    def _lacks_certificate(self, state: Any) -> bool:
        if self._needs_certificate is None:
            return False
        return not state.get("has_certificate") or time.time() >= state["certificate_end"]  # guard: http-ended-refused

    def _without_certificate(self) -> Status:
        return Status(grpc.StatusCode.UNAUTHENTICATED, self._needs_certificate or "", reason="no_certificate")

    def _access_refusal(
        self, check: Callable[[Metadata, Names], None], raw: Sequence[tuple[bytes, bytes]], state: Any
    ) -> Status | None:
        metadata = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        try:
            check(metadata, lambda: state.get("certificate_names", ()))  # guard: metrics-access
        except ServingError as error:
            return status_of(error)
        return None


def _denied(message: str, reason: str) -> Status:
    return Status(grpc.StatusCode.PERMISSION_DENIED, message, reason=reason)


def _is_own(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:
        return False
