"""The one place where the server's objects are built and joined, and its life from start to stop."""

import logging
import time
from collections.abc import Callable

from inferry_proto.services import IMAGE_CLASSIFIER_SERVICE, OPEN_INFERENCE_SERVICE
from inferry_server.addresses import Address
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ModelLoadError, StartError
from inferry_server.metrics import MetricsPage, ServerMetrics, serve_metrics
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.registry import IndexEntry, ModelRegistry, State
from inferry_server.models.repository import ModelFolder, VersionFolder, scan_repository
from inferry_server.readiness import Phase, Readiness
from inferry_server.rpc.aio import AioTransport
from inferry_server.rpc.router import Router
from inferry_server.runtime.providers import choose_providers, preload_libraries
from inferry_server.runtime.threads import available_cores
from inferry_server.services.classifier import ClassifierService
from inferry_server.services.control import ControlService
from inferry_server.services.deadlines import DeadlinePolicy
from inferry_server.services.decoding import DecodingPool
from inferry_server.services.health import HealthService
from inferry_server.services.inference import InferenceService
from inferry_server.services.reflection import HEALTH_SERVICE, ReflectionService
from inferry_server.settings import Settings

logger = logging.getLogger(__name__)


class Server:
    """A server with its models. `start`, then `stop`, once each, by one thread."""

    def __init__(self, settings: Settings) -> None:
        cores = available_cores()
        self._settings = settings
        self.metrics = ServerMetrics()
        self.readiness = Readiness(self._readiness_changed)
        self.registry = ModelRegistry(self._readiness_changed)
        self._health = HealthService(self.readiness.is_ready, self.registry.is_ready)
        self._decoding = DecodingPool(settings.decode_threads or cores)
        self._threads = settings.intra_op_num_threads or max(1, cores // settings.instance_count)
        self._transport = AioTransport(self._route(), max_message_bytes=settings.max_message_bytes)
        self._metrics_page: MetricsPage | None = None
        self.grpc_address: Address | None = None

    @property
    def metrics_address(self) -> Address | None:
        """Where the metrics page really is; None before `start`."""
        return None if self._metrics_page is None else self._metrics_page.address

    def start(self, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Bind the addresses, load the models, become ready.

        Args:
            stop_requested: asked between models, so that a start can be broken off.

        Raises:
            StartError: a setting, an address or the repository is unusable; nothing runs then.
        """
        folders = scan_repository(self._settings.repository)
        providers = choose_providers(self._settings.provider)
        preload_libraries(providers)
        options = LoadOptions(providers, self._threads, self._settings.instance_count, self._policy(), self.metrics)
        try:
            self._metrics_page = serve_metrics(self.metrics, self._settings.metrics_address)
            self.grpc_address = self._transport.start(self._settings.grpc_address)
            for folder in folders:
                if stop_requested():
                    return
                self._load_newest(folder, options)
            self._check_loaded()
        except StartError:
            self.stop(drain_delay_s=0, drain_timeout_s=0)
            raise
        self.readiness.enter(Phase.READY)

    def stop(self, *, drain_delay_s: float | None = None, drain_timeout_s: float | None = None) -> bool:
        """Turn not ready, go on answering for a while, then finish what was accepted.

        Args:
            drain_delay_s: how long to go on; None: as the settings say.
            drain_timeout_s: how long accepted requests may take after that; None: likewise.

        Returns:
            Whether every accepted request was answered.
        """
        was_ready = self.readiness.is_ready()
        self.readiness.enter(Phase.DRAINING)
        if was_ready:
            time.sleep(self._settings.drain_delay_s if drain_delay_s is None else drain_delay_s)
        timeout_s = self._settings.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
        ends = time.monotonic() + timeout_s
        self._health.close()
        self._transport.stop(timeout_s)
        self._decoding.close()
        finished = [
            version.batcher.close(max(0.0, ends - time.monotonic())) for version in self.registry.served()
        ]  # fmt: skip
        if self._metrics_page is not None:
            self._metrics_page.close()
        return all(finished)

    def _route(self) -> Router:
        router = Router(self.metrics)
        deadlines = DeadlinePolicy(
            None if self._settings.latency_objective_ms is None else self._settings.latency_objective_ms / 1e3
        )
        control = ControlService(self.registry, self.readiness.is_ready)
        reflection = ReflectionService((OPEN_INFERENCE_SERVICE, IMAGE_CLASSIFIER_SERVICE, HEALTH_SERVICE))
        inference = InferenceService(self.registry, deadlines)
        router.add_unary(inference.unary_handlers())
        router.add_streams(inference.stream_handlers())
        router.add_unary(ClassifierService(self.registry, deadlines, self._decoding).unary_handlers())
        router.add_unary(control.unary_handlers())
        router.add_unary(self._health.unary_handlers())
        router.add_streams(self._health.stream_handlers())
        router.add_streams(reflection.stream_handlers())
        return router

    def _policy(self) -> BatchingPolicy:
        return BatchingPolicy(
            max_batch_size=self._settings.max_batch_size,
            max_request_rows=self._settings.max_request_rows,
            max_queue_size=self._settings.max_queue_size,
            max_queue_bytes=self._settings.max_queue_bytes,
            max_queue_delay_s=self._settings.max_queue_delay_us / 1e6,
        )

    def _load_newest(self, folder: ModelFolder, options: LoadOptions) -> None:
        """Load the newest version of a model; one that fails is reported and the others go on."""
        if not folder.versions:
            self._report_failure(IndexEntry(folder.name, 0, State.UNAVAILABLE, folder.problem, failed=True))
            return
        *older, newest = folder.versions
        for version in older:
            self.registry.put(
                IndexEntry(version.model, version.version, State.UNAVAILABLE, "a newer version is served")
            )
        self.registry.put(IndexEntry(newest.model, newest.version, State.LOADING))
        self._load(newest, options)

    def _load(self, folder: VersionFolder, options: LoadOptions) -> None:
        try:
            served = load_version(folder, options)
        except ModelLoadError as error:
            self._report_failure(IndexEntry(folder.model, folder.version, State.UNAVAILABLE, str(error), failed=True))
            return
        self.metrics.loads.labels(folder.model, "ready").inc()
        self.registry.put(IndexEntry(folder.model, folder.version, State.READY, served=served))

    def _report_failure(self, entry: IndexEntry) -> None:
        logger.error("model not loaded: %s", entry.reason, extra={"model": entry.model})
        self.metrics.loads.labels(entry.model, "failed").inc()
        self.registry.put(entry)

    def _check_loaded(self) -> None:
        failed = [entry for entry in self.registry.index() if entry.failed]
        if not self.registry.served():
            raise StartError(
                f"no model of {self._settings.repository} could be loaded: " + "; ".join(e.reason for e in failed)
            )
        if failed and self._settings.strict:
            raise StartError("not every model could be loaded (--strict): " + "; ".join(e.reason for e in failed))

    def _readiness_changed(self) -> None:
        self.metrics.ready.set(self.readiness.is_ready())
        self.metrics.ready_models.set(len(self.registry.served()))
        self._health.changed()
