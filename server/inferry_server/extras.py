"""What works only where an extra of the distribution is installed, and what there is without it."""

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from inferry_proto.extras import how_to_install
from inferry_server.errors import StartError
from inferry_server.lifecycle import Readiness
from inferry_server.models.registry import ModelRegistry
from inferry_server.rpc.router import Router
from inferry_server.services.diagnostics import DiagnosticsService
from inferry_server.settings.settings import Settings
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.metrics_page import MetricsPage
from inferry_server.trace import NoTracer, Tracer
from inferry_server.transport.connections import share_of_peer

if TYPE_CHECKING:
    from inferry_server.http.port import HttpPort

logger = logging.getLogger(__name__)


def has_http() -> bool:
    """Whether the extra for the HTTP port is there."""
    return all(find_spec(name) is not None for name in ("httptools", "starlette", "uvicorn"))


def make_http_port(
    settings: Settings,
    router: Router,
    *,
    readiness: Readiness,
    registry: ModelRegistry,
    metrics: ServerMetrics,
    diagnostics: DiagnosticsService,
) -> "HttpPort | MetricsPage":
    """The port beside gRPC: of the extra `http`, else the metrics page alone.

    Raises:
        StartError: the settings ask for the extra, and it is not there.
    """
    try:
        from inferry_server.http.limits import HttpLimits
        from inferry_server.http.port import HttpPort, PortOptions  # here: what they need is an extra
    except ModuleNotFoundError as error:
        way_out = f"{error.name} is not installed; install it: {how_to_install('server', 'http')}"
        if settings.http_inference == "on":
            raise StartError(f"setting http_inference is on, and {way_out}") from error
        logger.warning("HTTP answers /metrics alone: %s", way_out)
        return MetricsPage(metrics, settings.http_address, settings.own_hosts, told=settings.tells_metrics)
    options = PortOptions(
        address=settings.http_address,
        hosts=settings.own_hosts,
        inference=settings.serves_http_inference,
        max_message_bytes=settings.max_message_bytes,
        compression=settings.response_compression,
        most_connections=settings.http_max_connections,
        limits=HttpLimits(
            read_s=settings.http_read_timeout_s,
            write_s=settings.http_write_timeout_s,
            header_bytes=settings.http_max_header_bytes,
        ),
        most_of_peer=share_of_peer(settings.http_max_connections_per_peer, of=settings.http_max_connections),
        certificate=settings.tls_certificate,
        private_key=settings.tls_private_key,
        client_ca=settings.tls_client_ca,
        open_metrics=settings.metrics_without_certificate,
    )
    if not settings.tells_metrics and not options.has_tls:
        logger.warning(
            "nobody can read /metrics: tls_client_ca asks for a certificate, and HTTP has no TLS; expected "
            "http_inference on, or metrics_without_certificate"
        )
    return HttpPort(router, readiness, registry, metrics, options, diagnostics)


def make_tracer(settings: Settings) -> Tracer:
    """What traces requests, if the settings say where traces go.

    Raises:
        StartError: they do, and the extra `tracing` is not there.
    """
    if settings.trace_endpoint is None:
        return NoTracer()
    try:
        from inferry_server.telemetry.tracing import otlp_tracer  # here: it is an extra
    except ModuleNotFoundError as error:
        raise StartError(
            f"setting trace_endpoint needs OpenTelemetry, and {error.name} is not installed; "
            f"install it: {how_to_install('server', 'tracing')}"
        ) from error
    return otlp_tracer(settings.trace_endpoint, settings.trace_sample_ratio)
