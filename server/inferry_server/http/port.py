"""The HTTP port put together: which routes it has, by what the settings allow."""

from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import disable_created_metrics
from starlette.routing import Route

from inferry_server.addresses import Address
from inferry_server.http.application import make_application
from inferry_server.http.bodies import BodyBudget
from inferry_server.http.calls import Calls
from inferry_server.http.control import control_routes
from inferry_server.http.direct import DirectInfer
from inferry_server.http.guard import Guard
from inferry_server.http.health import HealthQuestions, health_routes
from inferry_server.http.infer_plans import InferRequests
from inferry_server.http.inference import InferenceRoutes
from inferry_server.http.limits import HttpLimits
from inferry_server.http.live import LiveSnapshot, live_routes
from inferry_server.http.metrics_page import metrics_route
from inferry_server.http.replies import Compression
from inferry_server.http.response_plans import InferResponses
from inferry_server.http.server import HttpOptions, HttpServer
from inferry_server.http.tls import HttpTls
from inferry_server.lifecycle import Readiness
from inferry_server.models.registry import ModelRegistry
from inferry_server.rpc.router import Router
from inferry_server.security.hosts import OwnHosts
from inferry_server.security.watching import Contents
from inferry_server.services.diagnostics import DiagnosticsService
from inferry_server.telemetry.metrics import ServerMetrics


@dataclass(frozen=True)
class PortOptions:
    """What the port answers, and how.

    Attributes:
        address: where it listens; port 0 takes a free one.
        hosts: what requests may name in `Host`.
        inference: whether it answers more than health and metrics.
        max_message_bytes: the most bytes of a request's body.
        compression: of replies, for clients that accept it: `gzip`, `deflate` or `none`.
        most_connections: open at a time.
        most_of_peer: of them, from one address.
        limits: of each.
        certificate: with the private key: the port speaks TLS, if it answers more than health and metrics.
        private_key: of the certificate.
        client_ca: only clients with a certificate from it may ask for more than health, over TLS or not.
        open_metrics: whether clients without one may read the metrics all the same.
    """

    address: Address
    hosts: OwnHosts
    inference: bool
    max_message_bytes: int
    compression: str = "none"
    most_connections: int = 256
    most_of_peer: int = 192
    limits: HttpLimits = field(default_factory=HttpLimits)
    certificate: Path | None = None
    private_key: Path | None = None
    client_ca: Path | None = None
    open_metrics: bool = False

    @property
    def has_tls(self) -> bool:
        """Whether the port speaks TLS."""
        return self.inference and self.certificate is not None and self.private_key is not None


class HttpPort:
    """Health, metrics and, where it is on, the protocol's REST half.

    `start` and `close` are called once each, by one thread.

    Args:
        router: the handlers, as gRPC's transport has them.
        readiness: the server's.
        registry: the models.
        metrics: what `/metrics` shows.
        options: what is answered, and how.
        diagnostics: of late requests, for the live page.

    Attributes:
        address: where it listens; None before `start`.
        scheme: `http` or `https`.

    Raises:
        StartError: TLS cannot be set up.
    """

    def __init__(
        self,
        router: Router,
        readiness: Readiness,
        registry: ModelRegistry,
        metrics: ServerMetrics,
        options: PortOptions,
        diagnostics: DiagnosticsService,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nobody reads
        self._registry = registry
        self._options = options
        self._ending = False
        questions = HealthQuestions(readiness.not_live, readiness.not_ready, self._model_versions)
        compression, requests, responses = Compression(options.compression), InferRequests(), InferResponses()
        # They are tried in this order, five calls of functions each.
        routes = [
            metrics_route(metrics.registry),
            *_model_routes(router, options, compression, requests, responses),
            *health_routes(questions, lambda scope: guarded.tells_reasons(scope)),
        ]
        if options.inference:
            snapshot = LiveSnapshot(readiness, registry, metrics, diagnostics)
            routes += live_routes(snapshot, lambda: self._ending, lambda scope: guarded.still_takes(scope))
        tls = None
        if options.has_tls and options.certificate is not None and options.private_key is not None:
            tls = HttpTls(
                options.certificate,
                options.private_key,
                options.client_ca,
                refused=lambda: metrics.http_closed("handshake"),
            )
        guarded = Guard(
            make_application(routes),
            needs_certificate=_why_a_certificate(options, has_tls=tls is not None),
            open_metrics=options.open_metrics,
            hosts=options.hosts,
            access=router.access,
            refused=router.shed,
        )
        direct = None
        if options.inference:
            direct = DirectInfer(
                router, guarded.refuses, requests, responses, compression, limit=options.max_message_bytes
            )
        context = None if tls is None else tls.context
        self._tls = tls
        self._server = HttpServer(
            guarded,
            HttpOptions(
                options.most_connections,
                options.most_of_peer,
                options.limits,
                context,
                direct=direct,
                closed=metrics.http_closed,
                trusts=lambda connection: tls is None or tls.trusts(connection),
            ),
        )
        self.scheme = "http" if tls is None else "https"
        self.address: Address | None = None

    def start(self) -> None:
        """Listen, from now on at `self.address`.

        Raises:
            StartError: the address cannot be bound.
        """
        self.address = self._server.start(self._options.address)

    def apply_tls(self, contents: Contents) -> None:
        """Show new connections what the files of TLS hold now.

        Raises:
            StartError: they cannot be used.
        """
        if self._tls is not None:
            self._tls.apply(contents)

    def close(self) -> None:
        """Answer nothing more."""
        self._ending = True
        self._server.close()

    def _model_versions(self, model: str) -> tuple[list[str], dict[str, int]] | None:
        entry = self._registry.model(model)
        return None if entry is None else (self._registry.ready_versions(model), dict(entry.labels))


def _why_a_certificate(options: PortOptions, *, has_tls: bool) -> str | None:
    """What clients are told that need a certificate and have none; None where they need none."""
    if options.client_ca is None:
        return None
    told = "a client certificate is needed here, as over gRPC (setting tls_client_ca)"
    if has_tls:
        return told
    return (
        f"{told}, and this port has no TLS to show one; expected setting http_inference on, or "
        "metrics_without_certificate for /metrics"
    )


def _model_routes(
    router: Router,
    options: PortOptions,
    compression: Compression,
    requests: InferRequests,
    responses: InferResponses,
) -> list[Route]:
    if not options.inference:
        return []
    most = options.max_message_bytes
    calls = Calls(router, BodyBudget(limit=most, most=_BODIES_AT_A_TIME * most))
    inference = InferenceRoutes(calls, compression, requests, responses)
    return [*inference.routes(), *control_routes(calls)]


_BODIES_AT_A_TIME = 4  # of the largest
