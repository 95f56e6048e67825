"""Who may ask for more than health and metrics: no pages of other sites, and nobody without a certificate it takes."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from inferry_proto.services import DIAGNOSTICS
from inferry_server.errors import ServingError
from inferry_server.http.replies import json_reply
from inferry_server.http.statuses import http_code
from inferry_server.rpc.statuses import status_of
from inferry_server.security.access import Access, Metadata, Names
from inferry_server.security.hosts import OwnHosts, refusal

Application = Callable[[Any, Any, Any], Awaitable[None]]

_METRICS, _LIVE = "/metrics", "/live"
_EXPLAIN = DIAGNOSTICS["Explain"].path
_HEALTH = ("/livez", "/readyz", "/v2/health/")


class Guard:
    """Stands before an application and refuses what it must not be asked. For the loop's thread.

    A browser lets any page post to any server, this machine's own too, and says from which site it comes
    (`Origin`). That must be this server's own: what the request names in `Host`, which is checked first. Health is
    told to everybody: those who probe name what they like.

    Args:
        application: what is guarded.
        client_certificates: whether clients must have one; the TLS layer has verified those that came.
        hosts: what may be named in `Host`.
        access: decides who may read the metrics, and what the live page shows; None: everybody may. Calls ask it
            where they begin.
    """

    def __init__(
        self, application: Application, *, client_certificates: bool, hosts: OwnHosts, access: Access | None = None
    ) -> None:
        self._access = access
        self._application = application
        self._client_certificates = client_certificates
        self._hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        refusal = self.refuses(scope["path"], scope["headers"], scope["state"])
        if refusal is None:
            await self._application(scope, receive, send)
        else:
            code, message = refusal
            await json_reply({"error": message}, code)(scope, receive, send)

    def refuses(self, path: str, raw: Sequence[tuple[bytes, bytes]], state: Any) -> tuple[int, str] | None:
        """The code and the reason for a request that must not be asked; None for one that may.

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
            return 421, refusal(host)
        if path.startswith(_METRICS):
            return None if self._access is None else self._access_refusal(self._access.check_metrics, raw, state)
        origin = headers.get(b"origin")
        if origin is not None and not _is_own(origin.decode("latin-1"), host):  # guard: http-origin
            return 403, f"pages of {origin.decode('latin-1')[:200]} may not ask this server"
        if self._client_certificates and not state.get("has_certificate"):  # guard: http-certificate
            return 401, "a client certificate is needed here, as over gRPC (setting tls_client_ca)"
        # Not by the whole path: routes take one with a line's end behind it too.
        if self._access is not None and path.startswith(_LIVE):  # guard: live-access
            return self._access_refusal(partial(self._access.check, _EXPLAIN), raw, state)
        return None

    def _access_refusal(
        self, check: Callable[[Metadata, Names], None], raw: Sequence[tuple[bytes, bytes]], state: Any
    ) -> tuple[int, str] | None:
        metadata = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        try:
            check(metadata, lambda: state.get("certificate_names", ()))  # guard: metrics-access
        except ServingError as error:
            status = status_of(error)
            return http_code(status), status.message
        return None


def _is_own(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:
        return False
