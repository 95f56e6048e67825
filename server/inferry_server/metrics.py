"""Prometheus metrics: what is counted, and the page that shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from inferry_server.addresses import Address
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import Timing
from inferry_server.errors import StartError

# From a request that a small model answers at once to one that waited for an overloaded device.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ModelMetrics:
    """What one version of a model counts; the label lookups are done once, here."""

    def __init__(self, metrics: "ServerMetrics", model: str, version: str) -> None:
        labels = (model, version)
        self._batch_rows = metrics.batch_rows.labels(*labels)
        self._assembly = metrics.assembly.labels(*labels)
        self._compute = metrics.compute.labels(*labels)
        self._encode = metrics.encode.labels(*labels)
        self._queue = metrics.queue.labels(*labels)
        self._rows = metrics.rows.labels(*labels)

    def batch_done(self, *, rows: int, assembly_s: float, compute_s: float) -> None:
        """A batch of so many rows was put together and computed."""
        self._batch_rows.observe(rows)
        self._assembly.observe(assembly_s)
        self._compute.observe(compute_s)
        self._rows.inc(rows)

    def request_done(self, *, timing: Timing, output_s: float) -> None:
        """A request was answered."""
        self._queue.observe(timing.queue_s)
        self._encode.observe(output_s)


class ServerMetrics:
    """Every metric of one server, in a registry of its own. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received = Counter(
            "inferry_requests_received", "RPCs received; equals the sum of outcomes and what is in flight.",
            ["method"], registry=self.registry,
        )  # fmt: skip
        self.outcomes = Counter(
            "inferry_requests_outcome", "RPCs ended, by gRPC status code.",
            ["method", "code"], registry=self.registry,
        )  # fmt: skip
        self.duration = Histogram(
            "inferry_request_duration_seconds", "From the request's arrival to its answer.",
            ["method"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.queue = Histogram(
            "inferry_queue_duration_seconds", "From admission to the start of the batch.",
            ["model", "version"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.assembly = Histogram(
            "inferry_assembly_duration_seconds",
            "Putting the inputs of one batch together.",
            ["model", "version"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.compute = Histogram(
            "inferry_compute_duration_seconds", "One batch in ONNX Runtime.",
            ["model", "version"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.encode = Histogram(
            "inferry_encode_duration_seconds",
            "Making the reply of one request.",
            ["model", "version"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "inferry_batch_rows", "Rows a batch had.",
            ["model", "version"], buckets=_ROWS, registry=self.registry,
        )  # fmt: skip
        self.rows = Counter("inferry_rows_computed", "Rows computed.", ["model", "version"], registry=self.registry)
        self.queue_rows = Gauge(
            "inferry_queue_rows", "Rows waiting now.", ["model", "version", "lane"], registry=self.registry
        )
        self.loads = Counter(
            "inferry_model_loads", "Attempts to load a version, by outcome (ready, failed).",
            ["model", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.ready_models = Gauge("inferry_ready_models", "Versions that can answer now.", registry=self.registry)
        self.ready = Gauge("inferry_ready", "1 while the server is ready for requests.", registry=self.registry)
        self.provider = Gauge(
            "inferry_model_provider", "1 for the execution provider that computes a version.",
            ["model", "version", "provider"], registry=self.registry,
        )  # fmt: skip
        self.batch_limit = Gauge(
            "inferry_batch_limit_rows", "Rows the device still runs at once; falls when its memory is short.",
            ["model", "version"], registry=self.registry,
        )  # fmt: skip
        self.device_errors = Counter(
            "inferry_device_errors", "Errors of a GPU, by kind (model, out_of_memory, lost).",
            ["kind"], registry=self.registry,
        )  # fmt: skip
        self.self_checks = Counter(
            "inferry_self_checks", "Comparisons with golden samples while serving (passed, failed, skipped).",
            ["model", "outcome"], registry=self.registry,
        )  # fmt: skip
        self._providers: dict[tuple[str, str], str] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch_queue(self, model: str, version: str, rows: Callable[[Lane], int]) -> None:
        """Ask a version for its waiting rows whenever the page is read."""
        for lane in Lane:
            self.queue_rows.labels(model, version, lane.value).set_function(partial(rows, lane))

    def watch_device(self, model: str, version: str, provider: str, batch_limit: Callable[[], int]) -> None:
        """Show what computes a version, and ask for its limit whenever the page is read."""
        before = self._providers.pop((model, version), None)
        if before is not None:
            self.provider.remove(model, version, before)
        self._providers[model, version] = provider
        self.provider.labels(model, version, provider).set(1)
        self.batch_limit.labels(model, version).set_function(batch_limit)

    def forget(self, model: str, version: str) -> None:
        """Drop the series of a version that is gone; versions come and go, and memory must not grow."""
        for metric in (self.batch_rows, self.assembly, self.compute, self.encode, self.queue, self.rows):
            metric.remove(model, version)
        for lane in Lane:
            self.queue_rows.remove(model, version, lane.value)
        self.batch_limit.remove(model, version)
        self.provider.remove(model, version, self._providers.pop((model, version)))

    def for_model(self, model: str, version: str) -> ModelMetrics:
        """The metrics of one version."""
        return ModelMetrics(self, model, version)


@dataclass(frozen=True)
class MetricsPage:
    """The running HTTP server that answers `GET /metrics`."""

    address: Address
    server: WSGIServer

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()


def serve_metrics(metrics: ServerMetrics, address: Address) -> MetricsPage:
    """Serve the metrics over HTTP; port 0 takes a free one.

    Raises:
        StartError: the address cannot be bound.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nobody reads
    try:
        server, _ = start_http_server(address.port, address.host, registry=metrics.registry)
    except OSError as error:
        raise StartError(
            f"metrics address {address} cannot be bound ({error.strerror}); free the port or choose another"
        ) from error
    return MetricsPage(Address(address.host, server.server_port), server)
