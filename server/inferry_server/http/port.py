"""The HTTP port put together: which routes it has, by what the settings allow."""

from prometheus_client import disable_created_metrics

from inferry_server.addresses import Address
from inferry_server.http.application import make_application
from inferry_server.http.health import HealthQuestions, health_routes
from inferry_server.http.metrics_page import metrics_route
from inferry_server.http.server import HttpOptions, HttpServer
from inferry_server.lifecycle import Readiness
from inferry_server.models.registry import ModelRegistry
from inferry_server.telemetry.metrics import ServerMetrics


class HttpPort:
    """Health and metrics over HTTP. `start` and `close` are called once each, by one thread.

    Args:
        readiness: the server's.
        registry: the models.
        metrics: what `/metrics` shows.
        options: of the connections.
    """

    def __init__(
        self, readiness: Readiness, registry: ModelRegistry, metrics: ServerMetrics, options: HttpOptions
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nobody reads
        self._registry = registry
        questions = HealthQuestions(readiness.not_ready, self._model_versions)
        routes = [*health_routes(questions), metrics_route(metrics.registry)]
        self._server = HttpServer(make_application(routes), options)
        self.address: Address | None = None

    def start(self, address: Address) -> None:
        """Listen, from now on at `self.address`.

        Raises:
            StartError: the address cannot be bound.
        """
        self.address = self._server.start(address)

    def close(self) -> None:
        """Answer nothing more."""
        self._server.close()

    def _model_versions(self, model: str) -> tuple[list[str], dict[str, int]] | None:
        entry = self._registry.model(model)
        return None if entry is None else (self._registry.ready_versions(model), dict(entry.labels))
