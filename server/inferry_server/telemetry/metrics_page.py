"""The metrics over HTTP, where the extra `http` is not installed: one page, in the standard library alone."""

import contextlib
import socket
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client import disable_created_metrics

from inferry_proto.extras import how_to_install
from inferry_server.addresses import Address, http_not_bound
from inferry_server.giving_way import in_pieces
from inferry_server.security.hosts import OwnHosts, refusal
from inferry_server.security.watching import Contents
from inferry_server.telemetry.exposition import PageRegistry, write_page
from inferry_server.telemetry.metrics import ServerMetrics

MOST_CONNECTIONS = 32
"""Each has a thread and a descriptor; Prometheus and a person need a few."""

_TIMEOUT_S = 10.0  # for each read and write


class MetricsPage:
    """An HTTP server that answers `GET /metrics`; every other path is not found.

    `start` and `close` are called once each, by one thread. Slow clients take up few connections: the oldest makes
    room for a new one.

    Args:
        metrics: what it shows.
        wanted: where it shall listen; port 0 takes a free one.
        hosts: what requests may name in `Host`.
        told: whether clients without a certificate, as all are here, may read it.

    Attributes:
        address: where it listens; None before `start`.
    """

    scheme = "http"

    def __init__(self, metrics: ServerMetrics, wanted: Address, hosts: OwnHosts, *, told: bool = True) -> None:
        self._registry = metrics.registry
        self._wanted = wanted
        self._hosts = hosts
        self._told = told
        self._server: _Server | None = None
        self.address: Address | None = None

    def start(self) -> None:
        """Serve the metrics.

        Raises:
            StartError: the address cannot be bound.
        """
        address = self._wanted
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nobody reads
        try:
            self._server = _Server(address, self._registry, self._hosts, told=self._told)
        except OSError as error:
            raise http_not_bound(address, error) from error
        threading.Thread(target=self._server.serve_forever, name="metrics-page", daemon=True).start()
        self.address = Address(address.host, self._server.server_address[1])

    def apply_tls(self, contents: Contents) -> None:
        """Do nothing: this page has no TLS."""

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False  # whoever reads slowly is not waited for

    def __init__(self, address: Address, registry: PageRegistry, hosts: OwnHosts, *, told: bool) -> None:
        self.registry = registry
        self.hosts = hosts
        self.told = told
        self._lock = threading.Lock()
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self.address_family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((address.host, address.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own; the oldest connection makes room."""
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > MOST_CONNECTIONS else None  # guard: metrics-page-few
            if oldest is not None:
                del self._open[oldest]
        if oldest is not None:
            _shut(oldest)  # its thread wakes up, and closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that was answered."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's fault."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        """The page, in the format that the client accepts."""
        if self.path.partition("?")[0] != "/metrics":  # guard: metrics-page-alone
            self.send_error(404, explain=f"only /metrics is answered; for the rest: {how_to_install('server', 'http')}")
            return
        named = self.headers.get_all("host") or []
        if len(named) > 1 or (not named and self.request_version == "HTTP/1.1"):  # guard: metrics-page-one-host
            self.send_error(400, explain=f"expected one Host header, {len(named)} came")
            return
        host = "".join(named)
        if not self.server.hosts.has(host):  # guard: metrics-page-host
            self.send_error(421, explain=refusal(host))
            return
        if not self.server.told:  # guard: metrics-page-certificate
            self.send_error(401, explain="a client certificate is needed (tls_client_ca), and this port has no TLS")
            return
        families, content_type = write_page(self.server.registry, self.headers.get("accept") or "")
        body = b"".join(in_pieces(families))
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        """Nothing: a scrape every few seconds is no news."""


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # its client was quicker
        connection.shutdown(socket.SHUT_RDWR)
