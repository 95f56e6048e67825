"""The one place where the server's objects are built and joined, and its life from start to stop."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from inferry_proto.open_inference_pb2 import InferTensorContents
from inferry_proto.services import (
    DIAGNOSTICS,
    DIAGNOSTICS_SERVICE,
    IMAGE_CLASSIFIER,
    IMAGE_CLASSIFIER_SERVICE,
    OPEN_INFERENCE,
    OPEN_INFERENCE_SERVICE,
)
from inferry_server.addresses import Address, AnyAddress
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import DeadlinePolicy
from inferry_server.errors import StartError
from inferry_server.executing.core_turns import ComputeGate
from inferry_server.executing.inline import InlineWork
from inferry_server.executing.watchdog import Sign, Watchdog
from inferry_server.lateness.telling import log_late
from inferry_server.lifecycle import Phase, Readiness
from inferry_server.models.loading import LoadOptions
from inferry_server.models.manager import ModelManager, log_failure
from inferry_server.models.registry import IndexEntry, ModelRegistry
from inferry_server.models.repository import scan_repository
from inferry_server.models.self_check import SelfCheck
from inferry_server.models.version import ServedVersion, close_all
from inferry_server.rpc.router import Router
from inferry_server.runtime.cuda_options import CudaOptions
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.instances import Devices
from inferry_server.runtime.providers import choose_providers, preload_libraries
from inferry_server.runtime.threads import available_cores
from inferry_server.security.access import Access
from inferry_server.security.certificate_dates import earliest_end
from inferry_server.security.policy import Policy, parse_policy
from inferry_server.security.watching import Contents, FileWatcher, WatchedFiles, read_files
from inferry_server.services.classifier import ClassifierService
from inferry_server.services.control import (
    EXTENSIONS,
    MODEL_CONTROL_EXTENSIONS,
    SHARED_MEMORY_EXTENSIONS,
    ControlService,
)
from inferry_server.services.decoding import DecodingPool
from inferry_server.services.diagnostics import DiagnosticsService
from inferry_server.services.health import HealthService
from inferry_server.services.inference import InferenceService
from inferry_server.services.log_settings import LogSettingsService
from inferry_server.services.pictures import PictureLimits
from inferry_server.services.reflection import HEALTH_SERVICE, ReflectionService
from inferry_server.services.repository import RepositoryService
from inferry_server.services.shared_memory import SharedMemoryService
from inferry_server.services.trace_settings import TraceSettingsService
from inferry_server.settings.settings import Settings
from inferry_server.telemetry.logs import choose_logging, configure_logging
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.metrics_page import MetricsPage
from inferry_server.trace import NoTracer, Tracer
from inferry_server.transport.connections import affordable_connections, can_count_connections, count_connections
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import make_transport
from inferry_server.transport.tls import ServerTls
from inferry_server.wire.fields import FieldLimit
from inferry_server.wire.shared_memory import FOLDER, SharedMemoryRegions

if TYPE_CHECKING:
    from inferry_server.http.port import HttpPort

logger = logging.getLogger(__name__)

_LONGEST_FLUSH_S = 3.0  # for traces: a collector that is away must not hold up the end
_REQUEST_TYPES = {
    method.path: method.request_type.DESCRIPTOR
    for methods in (OPEN_INFERENCE, IMAGE_CLASSIFIER, DIAGNOSTICS)
    for method in methods.values()
}
_DATA_TYPES = frozenset({InferTensorContents.DESCRIPTOR.full_name})
_UNWANTED_RUN_S = 1.0  # of computing what nobody waits for; most batches are done before
_LEAST_JOIN_S = 1.0  # what an idle batcher needs to notice that it is closed, at the very most


class Server:
    """A server with its models. `start`, then `stop`, once each, by one thread."""

    def __init__(
        self,
        settings: Settings,
        tracer: Tracer | None = None,
        *,
        device_lost: Callable[[], None] = lambda: None,
        transport_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Build everything and start nothing.

        Args:
            settings: as read.
            tracer: instead of the one that the settings ask for.
            device_lost: called, on any thread, when a GPU will compute nothing any more: time to stop.
            transport_failed: called, on any thread, when no call can be answered any more: time to stop.

        Raises:
            StartError: a provider was demanded that cannot be had, or traces without the extra for them.
        """
        cores = available_cores()
        self._settings = settings
        self._device_lost = device_lost
        self._served_versions = 0
        self._transport_failed = transport_failed
        self.metrics = ServerMetrics()
        self._tracer = tracer or _make_tracer(settings)
        self.readiness = Readiness(self._readiness_changed)
        self.registry = ModelRegistry(self._readiness_changed)
        self._health = HealthService(self.readiness.is_ready, self.registry.is_ready)
        self._diagnostics = DiagnosticsService(self.registry)
        self._decoding = DecodingPool(
            settings.decode_threads or cores, max_waiting=settings.max_queue_size, max_bytes=settings.max_queue_bytes
        )
        self._providers = choose_providers(settings.provider)
        inline = InlineWork()
        options = LoadOptions(
            providers=self._providers,
            intra_op_num_threads=settings.intra_op_num_threads or max(1, cores // settings.instance_count),
            instance_count=settings.instance_count,
            policy=self._policy(),
            metrics=self.metrics,
            devices=self._devices(),
            gate=ComputeGate(cores),
            inline=inline,
            inline_batch_s=settings.inline_batch_ms / 1e3,
            parallel_runs=settings.parallel_runs,
            late_requests=settings.late_requests,
            latency_objective_s=_objective_s(settings),
        )
        self._manager = ModelManager(
            settings.repository,
            self.registry,
            options,
            drain_timeout_s=settings.drain_timeout_s,
            model_load_timeout_s=settings.model_load_timeout_s,
        )
        self._self_check = SelfCheck(self.registry.served, self._withdraw, self._count_self_check)
        self._watcher = FileWatcher()
        access = self._make_access()
        router = self._route(access)
        self._transport = make_transport(
            settings.transport,
            router,
            _transport_options(settings, self._watch_tls),
            inline=inline,
            failed=self._lose_transport,
            relieved=self.metrics.hangs.labels("inline_batch").inc,
        )
        self._watchdog = Watchdog(
            self._signs,
            hang_after_s=settings.hang_after_s,
            hangs=self.readiness.report_hang,
            counted=lambda kind: self.metrics.hangs.labels(kind).inc(),
        )
        self._http = self._make_http_port(router)
        self.grpc_address: AnyAddress | None = None

    @property
    def http_address(self) -> Address | None:
        """Where HTTP is really answered; None before `start`."""
        return self._http.address

    @property
    def metrics_address(self) -> Address | None:
        """Where `/metrics` is."""
        return self.http_address

    @property
    def http_scheme(self) -> str:
        """`https` where HTTP is encrypted, else `http`."""
        return self._http.scheme

    def start(self, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Bind the addresses, load the models, become ready.

        Args:
            stop_requested: asked between models, so that a start can be broken off.

        Raises:
            StartError: a setting, an address or the repository is unusable; nothing runs then.
        """
        if self._settings.system_shared_memory and not FOLDER.is_dir():
            raise StartError(f"setting system_shared_memory needs {FOLDER}, which this machine does not have")
        folders = scan_repository(self._settings.repository)
        preload_libraries(self._providers, tf32=self._settings.tf32)
        try:
            self._tracer.start()
            self.registry.expect(folder.name for folder in folders)
            self._http.start()
            self.grpc_address = self._transport.start(self._settings.grpc_address)
            self._watchdog.start()
            self._watcher.start()
            if isinstance(self.grpc_address, Address) and can_count_connections():
                self.metrics.watch_connections(partial(count_connections, self.grpc_address.port))
            self._manager.load_all(folders, stop_requested)  # guard: start-ready-only
            self.registry.expect(())
            broken_off = stop_requested()
            self._check_loaded(broken_off=broken_off)
            if broken_off:
                return
        except StartError:
            self.stop()
            raise
        self.readiness.enter(Phase.READY)
        if self._settings.model_control == "poll":
            self._manager.start_polling(self._settings.poll_interval_s)
        if self._settings.self_check_interval_s:
            self._self_check.start(self._settings.self_check_interval_s)

    def stop(self, hurry: threading.Event | None = None) -> bool:
        """Turn not ready, go on answering for a while, then finish what was accepted.

        Everything together ends within `drain_delay_s` and `drain_timeout_s`, and a few seconds for what has to be
        told to end.

        Args:
            hurry: set, it ends the wait for balancers to turn away.

        Returns:
            Whether every accepted request was answered.
        """
        was_ready = self.readiness.phase is Phase.READY
        self.readiness.enter(Phase.DRAINING)  # guard: stop-not-ready
        if was_ready:
            (hurry or threading.Event()).wait(self._settings.drain_delay_s)
        ends = time.monotonic() + self._settings.drain_timeout_s
        self._self_check.close()
        self._manager.close()
        answered = self._transport.stop(max(0.0, ends - time.monotonic()))  # guard: stop-was-accepted
        self._decoding.close()
        finished = close_all(self.registry.served(), max(_LEAST_JOIN_S, ends - time.monotonic()))
        self._tracer.close(min(_LONGEST_FLUSH_S, max(_LEAST_JOIN_S, ends - time.monotonic())))
        self._watchdog.close()
        self._watcher.close()
        self._http.close()
        return answered and finished

    def _signs(self) -> Iterator[Sign]:
        """What is under way, and may take too long."""
        unread_s = self._transport.look()
        self.readiness.report_unread(unread_s >= self._settings.hang_after_s)
        yield Sign("reading", "calls are not read", unread_s)
        for version in self.registry.served():
            log_late(version.model, version.version, version.observer.late.tick(time.monotonic()))
            oldest_s, ended = version.batcher.end_long_runs(
                unwanted_s=_UNWANTED_RUN_S, longest_s=self._settings.max_run_s
            )
            for reason in ended:
                logger.warning(
                    "a run of %.1f s was ended: %s",
                    oldest_s,
                    reason,
                    extra={"model": f"{version.model}/{version.version}"},
                )
                self.metrics.runs_ended.labels(version.model, version.version, reason).inc()
            yield Sign("model_run", f"model {version.model}/{version.version} computes one batch", oldest_s)

    def _make_http_port(self, router: Router) -> "HttpPort | MetricsPage":
        settings = self._settings
        try:
            from inferry_server.http.port import HttpPort, PortOptions  # here: what they need is an extra
        except ModuleNotFoundError as error:
            way_out = f"{error.name} is not installed; install it: pip install 'inferry[server,http]'"
            if settings.http_inference == "on":
                raise StartError(f"setting http_inference is on, and {way_out}") from error
            logger.warning("HTTP answers /metrics alone: %s", way_out)
            return MetricsPage(self.metrics, settings.http_address)
        options = PortOptions(
            address=settings.http_address,
            inference=settings.serves_http_inference,
            max_message_bytes=settings.max_message_bytes,
            compression=settings.response_compression,
            most_connections=settings.http_max_connections,
            certificate=settings.tls_certificate,
            private_key=settings.tls_private_key,
            client_ca=settings.tls_client_ca,
        )
        return HttpPort(router, self.readiness, self.registry, self.metrics, options, self._diagnostics)

    def _make_access(self) -> Access | None:
        path = self._settings.access_policy
        if path is None:
            return None

        def read(contents: Contents) -> Policy:
            policy = parse_policy(contents[path])
            if policy.metrics is not None and not _has_http():
                raise StartError("access policy: metrics must be open where inferry[http] is not installed")
            if policy.certificates and self._settings.tls_client_ca is None:
                raise StartError("access policy: certificates have no effect without setting tls_client_ca")
            return policy

        try:
            contents = read_files([path])
        except OSError as error:
            raise StartError(f"setting access_policy: {path} cannot be read ({error.strerror})") from error
        access = Access(read(contents))
        self._watcher.add(
            WatchedFiles("access policy", [path], contents, lambda new: access.exchange(read(new)), self._reloaded)
        )
        return access

    def _watch_tls(self, tls: ServerTls) -> None:
        """Read the files of TLS again when they change, for gRPC and HTTP."""

        def apply(contents: Contents) -> None:
            tls.apply(contents)
            self._http.reload_tls()
            self._tell_ends(contents)

        self._tell_ends(tls.contents)
        self._watcher.add(WatchedFiles("TLS files", tls.paths, tls.contents, apply, self._reloaded))

    def _tell_ends(self, contents: Contents) -> None:
        settings = self._settings
        for name, path in (("certificate", settings.tls_certificate), ("client_ca", settings.tls_client_ca)):
            end = None if path is None else earliest_end(contents[path])
            if end is not None:
                self.metrics.certificate_end.labels(name).set(end)

    def _reloaded(self, what: str, outcome: str) -> None:
        self.metrics.reloads.labels(what, outcome).inc()

    def _route(self, access: Access | None) -> Router:
        most_fields = self._settings.max_message_fields
        limit = FieldLimit(most_fields, _REQUEST_TYPES, data_types=_DATA_TYPES)
        router = Router(self.metrics, self._tracer, check=limit.check, unchecked_bytes=most_fields, access=access)
        deadlines = DeadlinePolicy(_objective_s(self._settings))
        control = ControlService(self.registry, self.readiness.is_ready, extensions=_extensions(self._settings))
        reflection = ReflectionService(
            (OPEN_INFERENCE_SERVICE, IMAGE_CLASSIFIER_SERVICE, DIAGNOSTICS_SERVICE, HEALTH_SERVICE)
        )
        regions = SharedMemoryRegions(allowed=self._settings.system_shared_memory)
        log_settings = LogSettingsService(
            choose_logging(log_format=self._settings.log_format, level=self._settings.log_level),
            configure_logging,
            allowed=self._settings.remote_logging_control,
        )
        inference = InferenceService(self.registry, deadlines, regions, self._tracer)
        router.add_unary(inference.unary_handlers(), sheddable=self._is_one_version_served)
        router.add_streams(inference.stream_handlers())
        classifier = ClassifierService(
            self.registry,
            deadlines,
            self._decoding,
            self._tracer,
            limits=PictureLimits(
                self._settings.max_image_pixels, self._settings.max_image_scans, self._settings.decode_timeout_s
            ),
        )
        router.add_unary(classifier.unary_handlers(), sheddable=self._is_one_version_served)
        router.add_streams(classifier.stream_handlers())
        router.add_unary(control.unary_handlers())
        router.add_unary(self._diagnostics.unary_handlers())
        router.add_unary(
            RepositoryService(
                self._manager.load_model,
                self._manager.unload_model,
                allowed=self._settings.model_control == "explicit",
            ).unary_handlers()
        )
        router.add_unary(SharedMemoryService(regions).unary_handlers())
        router.add_unary(log_settings.unary_handlers())
        trace_settings = TraceSettingsService(
            self.registry,
            exported=self._settings.trace_endpoint is not None,
            sample_ratio=self._settings.trace_sample_ratio,
        )
        router.add_unary(trace_settings.unary_handlers())
        router.add_unary(self._health.unary_handlers(), traced=False)
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

    def _devices(self) -> Devices:
        settings = self._settings
        options = CudaOptions(
            gpu_mem_limit_bytes=settings.gpu_mem_limit_bytes,
            cudnn_conv_algo_search=settings.cudnn_conv_algo_search,
            tf32=settings.tf32,
            cuda_graphs=settings.cuda_graphs,
        )
        count = self.metrics.device_errors
        return Devices(options, DeviceHealth(self._lose_device, lambda kind: count.labels(kind).inc()))

    def _lose_device(self, reason: str) -> None:
        """Not ready from this moment on: whoever runs this server ends it, and a new process computes again."""
        self.readiness.report_fault(reason)
        self._device_lost()

    def _lose_transport(self) -> None:
        """Not ready from this moment on, on the metrics page too: nobody can ask over gRPC."""
        self.readiness.report_fault("the transport failed")
        self._transport_failed()

    def _withdraw(self, version: ServedVersion, reason: str) -> None:
        """A version computes wrong answers, so the device that it shares with all others may."""
        self._manager.withdraw(version, reason)
        self.readiness.report_fault(reason)

    def _count_self_check(self, model: str, outcome: str) -> None:
        self.metrics.self_checks.labels(model, outcome).inc()

    def _check_loaded(self, *, broken_off: bool) -> None:
        """Say what failed, once: as the reason why the server does not start, else in the log."""
        failed = [entry for entry in self.registry.index() if entry.failed]
        if not broken_off:
            self._require_loaded(failed)
        for entry in failed:
            log_failure(entry)

    def _require_loaded(self, failed: Sequence[IndexEntry]) -> None:
        if not self.registry.served():
            raise StartError(
                f"no model of {self._settings.repository} could be loaded: " + "; ".join(e.reason for e in failed)
            )
        if failed and self._settings.strict:
            raise StartError("not every model could be loaded (--strict): " + "; ".join(e.reason for e in failed))

    def _is_one_version_served(self) -> bool:
        """Whether every inference call is meant for the same version, so that it need not be read to be shed."""
        return self._served_versions == 1  # guard: shed-one-version

    def _readiness_changed(self) -> None:
        self._served_versions = len(self.registry.served())
        self.metrics.ready.set(self.readiness.is_ready())
        self.metrics.ready_models.set(self._served_versions)
        self._health.changed()


def _objective_s(settings: Settings) -> float | None:
    return None if settings.latency_objective_ms is None else settings.latency_objective_ms / 1e3


def _has_http() -> bool:
    """Whether the extra for the HTTP port is there."""
    return all(find_spec(name) is not None for name in ("httptools", "starlette", "uvicorn"))


def _make_tracer(settings: Settings) -> Tracer:
    if settings.trace_endpoint is None:
        return NoTracer()
    try:
        from inferry_server.telemetry.tracing import otlp_tracer  # here: it is an extra
    except ModuleNotFoundError as error:
        raise StartError(
            f"setting trace_endpoint needs OpenTelemetry, and {error.name} is not installed; "
            "install it: pip install 'inferry[server,tracing]'"
        ) from error
    return otlp_tracer(settings.trace_endpoint, settings.trace_sample_ratio)


def _transport_options(settings: Settings, watch: Callable[[ServerTls], object]) -> TransportOptions:
    return TransportOptions(
        max_message_bytes=settings.max_message_bytes,
        max_streams=settings.max_streams_per_connection,
        max_connections=affordable_connections(settings.max_connections, others=settings.http_max_connections),
        max_connection_age_s=settings.max_connection_age_s,
        max_connection_idle_s=settings.max_connection_idle_s,
        request_read_timeout_s=settings.request_read_timeout_s,
        keepalive_time_s=settings.keepalive_time_s,
        compression=settings.response_compression,
        compressed_requests=settings.compressed_requests,
        certificate=settings.tls_certificate,
        private_key=settings.tls_private_key,
        client_ca=settings.tls_client_ca,
        watch=watch,
    )


def _extensions(settings: Settings) -> tuple[str, ...]:
    """What works with these settings, as the protocol names it."""
    model_control = MODEL_CONTROL_EXTENSIONS if settings.model_control == "explicit" else ()
    shared_memory = SHARED_MEMORY_EXTENSIONS if settings.system_shared_memory else ()
    return (*EXTENSIONS, *model_control, *shared_memory)
