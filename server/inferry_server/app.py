"""The one place where the server's objects are built and joined, and its life from start to stop."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from inferry_proto.cores import available_cores
from inferry_server.addresses import Address, AnyAddress
from inferry_server.errors import StartError
from inferry_server.executing.core_turns import ComputeGate
from inferry_server.executing.inline import InlineWork
from inferry_server.executing.watchdog import Sign, Watchdog
from inferry_server.extras import has_http, make_http_port, make_tracer
from inferry_server.front_ends.transport import FrontEndsTransport
from inferry_server.lateness.telling import log_late
from inferry_server.lifecycle import Phase, Readiness
from inferry_server.models.loading import LoadOptions
from inferry_server.models.manager import ModelManager, log_failure
from inferry_server.models.registry import IndexEntry, ModelRegistry
from inferry_server.models.repository import scan_repository
from inferry_server.models.self_check import SelfCheck
from inferry_server.models.signed import checked_model_key
from inferry_server.models.version import ServedVersion, close_all
from inferry_server.routes import route
from inferry_server.rpc.router import Router
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.instances import Devices
from inferry_server.runtime.memory import ALLOCATIONS
from inferry_server.runtime.memory_keeper import MemoryKeeper
from inferry_server.runtime.providers import CPU, choose_providers, preload_libraries
from inferry_server.security.access import Access
from inferry_server.security.policy import Policy
from inferry_server.security.reloading import watch_tls, watched_access
from inferry_server.security.watching import FileWatcher
from inferry_server.services.decoding import DecodingPool
from inferry_server.services.diagnostics import DiagnosticsService
from inferry_server.services.health import HealthService
from inferry_server.settings.options import (
    batching_policy,
    cuda_options,
    front_end_plan,
    objective_s,
    shared_room,
    transport_options,
)
from inferry_server.settings.settings import Settings
from inferry_server.telemetry.load_report import LoadReport
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.server_facts import ServerFacts, tell_build
from inferry_server.trace import Tracer
from inferry_server.transport.connections import ConnectionCount, can_count_connections
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.pacing import Pacing
from inferry_server.transport.selection import Transport, make_transport
from inferry_server.transport.tls import ServerTls
from inferry_server.wire.shared_memory import FOLDER

logger = logging.getLogger(__name__)

_LONGEST_FLUSH_S = 3.0  # for traces: a collector that is away must not hold up the end
_UNWANTED_RUN_S = 1.0  # of computing what nobody waits for; most batches are done before
_BOUNDING_CORES, _BOUNDING_S = 3e-4, 1.0  # that bounding what is allocated may take; how far apart it is done at most
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
        self._reload_others: Callable[[], None] = lambda: None
        self._others_cpu_s: Callable[[], float] = lambda: 0.0
        self.metrics = ServerMetrics()
        self._tracer = tracer or make_tracer(settings)
        self.readiness = Readiness(self._readiness_changed)
        self.registry = ModelRegistry(self._readiness_changed, most_points_lost=settings.max_variant_loss_points)
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
            policy=batching_policy(settings),
            room=shared_room(settings),
            metrics=self.metrics,
            devices=self._devices(),
            gate=ComputeGate(cores),
            inline=inline,
            inline_batch_s=settings.inline_batch_ms / 1e3,
            parallel_runs=settings.parallel_runs,
            late_requests=settings.late_requests,
            latency_objective_s=objective_s(settings),
            model_key=checked_model_key(settings.model_key),
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
        router = route(
            settings,
            registry=self.registry,
            manager=self._manager,
            readiness=self.readiness,
            metrics=self.metrics,
            health=self._health,
            diagnostics=self._diagnostics,
            decoding=self._decoding,
            access=access,
            tracer=self._tracer,
            is_one_version_served=self._is_one_version_served,
        )
        self._report = LoadReport(cores=cores, instances=settings.instance_count) if settings.report_load else None
        transport = transport_options(settings, self._watch_tls, self._report)
        self._transport = self._make_transport(router, transport, inline, settings.front_end_count(cores))
        self._bounds_memory = settings.memory_bound and tuple(self._providers) == (CPU,)  # as for loads
        self._bounding = Pacing(_BOUNDING_CORES, _BOUNDING_S)
        self._watchdog = Watchdog(
            self._signs,
            hang_after_s=settings.hang_after_s,
            hangs=self.readiness.report_hang,
            counted=lambda kind: self.metrics.hangs.labels(kind).inc(),
        )
        self._keeper = MemoryKeeper(self._give_outputs_back)
        self._http = make_http_port(
            settings,
            router,
            readiness=self.readiness,
            registry=self.registry,
            metrics=self.metrics,
            diagnostics=self._diagnostics,
        )
        self._facts = ServerFacts(self.registry, self._decoding, transport.max_connections)
        self.metrics.server_facts.watch(self._facts.ask)
        tell_build(self.metrics)
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
            self._keeper.start()
            self._watcher.start()
            if isinstance(self.grpc_address, Address) and can_count_connections():
                self.metrics.watch_connections(ConnectionCount(self.grpc_address.port))
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
        self._facts.draining(self._settings.drain_delay_s + self._settings.drain_timeout_s)
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
        self._keeper.close()
        ALLOCATIONS.release()
        self._watcher.close()
        self._http.close()
        return answered and finished

    def _give_outputs_back(self) -> None:
        for version in self.registry.served():
            version.give_outputs_back()

    def _signs(self) -> Iterator[Sign]:
        """What is under way, and may take too long; tells and bounds, besides, what is to be told and bounded often."""
        if self._report is not None:
            self._report.tick(
                time.monotonic(), cpu_s=time.process_time() + self._others_cpu_s(), done=self.metrics.done()
            )
        if self._bounds_memory and self._bounding.is_due():
            with self._bounding.work():
                ALLOCATIONS.follow()
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

    def _make_transport(
        self, router: Router, options: TransportOptions, inline: InlineWork, front_ends: int
    ) -> Transport:
        relieved = self.metrics.hangs.labels("inline_batch").inc
        if not front_ends:
            return make_transport(
                self._settings.transport, router, options, inline=inline, failed=self._lose_transport, relieved=relieved
            )
        plan = front_end_plan(self._settings, options)
        transport = FrontEndsTransport(
            router,
            options,
            plan,
            front_ends,
            inline=inline,
            relieved=relieved,
            ended=self.metrics.front_end_ends.labels().inc,
        )
        self.metrics.front_ends.set_function(lambda: transport.listening)
        self._reload_others = transport.tell_files
        self._others_cpu_s = lambda: transport.cpu_s
        return transport

    def _make_access(self) -> Access | None:
        path = self._settings.access_policy
        if path is None:
            return None
        return watched_access(self._watcher, path, check=self._check_policy, told=self._reloaded)

    def _check_policy(self, policy: Policy) -> None:
        if policy.metrics is not None and not has_http():
            raise StartError("access policy: metrics must be open where the extra http is not installed")
        if policy.certificates and self._settings.tls_client_ca is None:
            raise StartError("access policy: certificates have no effect without setting tls_client_ca")

    def _watch_tls(self, tls: ServerTls) -> None:
        """Read the files of TLS again when they change, for gRPC and HTTP."""
        watch_tls(
            self._watcher,
            tls,
            certificates={
                "certificate": self._settings.tls_certificate,
                "client_ca": self._settings.tls_client_ca,
            },
            applied=self._http.apply_tls,
            ends=lambda name, end: self.metrics.certificate_end.labels(name).set(end),
            told=self._reloaded,
        )

    def _reloaded(self, what: str, outcome: str) -> None:
        if outcome == "reloaded":  # what cannot be used here is used nowhere
            self._reload_others()
        self.metrics.reloads.labels(what, outcome).inc()

    def _devices(self) -> Devices:
        count = self.metrics.device_errors
        health = DeviceHealth(self._lose_device, lambda kind: count.labels(kind).inc())
        return Devices(cuda_options(self._settings), health)

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
        self.metrics.last_self_check.labels(model, outcome).set_to_current_time()

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
