"""Prometheus metrics: what is counted, and the page that shows it.

Counters, gauges and histograms with the same buckets everywhere: replicas can be added up.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from prometheus_client import (
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)

from inferry_server.batching.policy import Lane
from inferry_server.telemetry.counters import Ask, AskedGauges, CallDurations, Counter, Histogram
from inferry_server.telemetry.exposition import PageRegistry
from inferry_server.telemetry.load_report import Done
from inferry_server.telemetry.series import SUMMED, BatchSeries, Count, MethodSeries, Sums

logger = logging.getLogger(__name__)

# From a request that a small model answers at once to one that waited for an overloaded device.
_SECONDS = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005,
    0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10,
)  # fmt: skip
_PARTS = ("read", "queue", "compute", "reply")
_VERSION_FACTS: dict[str, tuple[str, Sequence[str]]] = {
    "inferry_instances": ("Batches of a version that can be computed at the same time.", ()),
    "inferry_capacity_rows_per_second": (
        "Rows that full batches would compute a second, by what was learned of their time; 0 before it was measured.",
        (),
    ),
    "inferry_max_batch_rows": ("Rows of one run at most.", ()),
    "inferry_queue_limit_rows": ("Rows that may wait in each lane.", ()),
    "inferry_queue_bytes": ("Bytes of inputs that wait.", ("lane",)),
    "inferry_queue_limit_bytes": ("Bytes of inputs that may wait in each lane.", ()),
}
_SERVER_FACTS: dict[str, tuple[str, Sequence[str]]] = {
    "inferry_model_label_info": ("1 for every label of a model, with the version.", ("model", "version", "label")),
    "inferry_model_traffic_weight": (
        "The share of a label in a model's traffic, to be divided by the sum of them.",
        ("model", "version", "label"),
    ),
    "inferry_drain_ends_timestamp_seconds": (
        "When the server should be gone at the latest, in seconds since the epoch; 0 while it does not drain.",
        (),
    ),
    "inferry_open_connections_limit": ("TCP connections that the gRPC port takes.", ()),
    "inferry_decoding_requests": ("Requests whose pictures wait to be decoded, or are.", ()),
    "inferry_gpu_memory_used_bytes": ("Memory of a GPU in use, by whomever.", ("gpu",)),
    "inferry_gpu_memory_total_bytes": ("Memory of a GPU.", ("gpu",)),
    "inferry_gpu_utilization_ratio": ("Share of the last moment in which a GPU computed.", ("gpu",)),
}
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


_PREDICTIONS = ("/ModelInfer", "/Classify")
_OVERLOADED = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL")


class ModelMetrics:
    """What one version of a model counts; the label lookups are done once, here.

    Instances of a version that overlap, while one replaces the other, count into the same series.

    Attributes:
        batches: what is counted of every batch.
    """

    def __init__(self, metrics: "ServerMetrics", model: str, version: str) -> None:
        labels = (model, version)
        self._labels = labels
        self._metrics = metrics
        self.batches = BatchSeries(
            batch_rows=metrics.batch_rows.labels(*labels),
            compute=metrics.compute.labels(*labels),
            queue=metrics.queue.labels(*labels),
            requests=metrics.model_duration.labels(*labels),
            sums=Sums(len(SUMMED)),
        )
        self._show_sums()
        self._overruns = metrics.overruns.labels(*labels)
        self._batching_ended = metrics.batching_ended.labels(*labels)
        self._lock = threading.Lock()
        self._removed = False
        self._ended: dict[tuple[str, str], Count] = {}  # by outcome and reason, as they come up
        self._degraded: dict[str, Count] = {}  # by the variant's precision
        self._provider: str | None = None

    def request_refused(self, reason: str) -> None:
        """A request for this version was not computed."""
        counter = self._ended.get(("refused", reason)) or self._new_outcome("refused", reason)
        counter.inc()

    def request_failed(self, reason: str) -> None:
        """A request for this version was admitted, and computing it failed."""
        counter = self._ended.get(("failed", reason)) or self._new_outcome("failed", reason)
        counter.inc()

    def request_degraded(self, variant: str) -> None:
        """A request for this version was given to a variant of it, of this precision."""
        counter = self._degraded.get(variant) or self._new_variant(variant)
        counter.inc()

    def request_cancelled(self) -> None:
        """Nobody wants the answer of a request for this version any more."""
        counter = self._ended.get(("cancelled", "")) or self._new_outcome("cancelled", "")
        counter.inc()

    def _new_outcome(self, outcome: str, reason: str) -> Count:
        with self._lock:
            if self._removed:  # a straggler must not bring a series back
                return Count()
            counter = self._ended.setdefault((outcome, reason), Count())
            self._metrics.model_requests.show(counter, *self._labels, outcome, reason)
            if outcome == "refused":
                self._metrics.refused.show(counter, *self._labels, reason)
            return counter

    def _new_variant(self, variant: str) -> Count:
        with self._lock:
            if self._removed:
                return Count()
            counter = self._degraded.setdefault(variant, Count())
            self._metrics.degraded.show(counter, *self._labels, variant)
            return counter

    def _show_sums(self) -> None:
        metrics, labels, sums = self._metrics, self._labels, self.batches.sums
        share = {name: sums[position] for position, name in enumerate(SUMMED)}
        metrics.rows.show(share["rows"], *labels)
        metrics.model_requests.show(share["answered"], *labels, "answered", "")
        for part in _PARTS:
            metrics.parts.show(share[part], *labels, part)
        metrics.busy.show(share["busy"], *labels)
        for direction in ("input", "output"):
            metrics.tensor_bytes.show(share[f"{direction}_bytes"], *labels, direction)

    def overran(self, seconds: float) -> None:
        """A batch took so long that the thread that reads requests computes none of this version any more."""
        logger.warning(
            "a batch took %.2f s: batches of this version are not computed by the thread that reads requests any more",
            seconds, extra={"model": "/".join(self._labels)},
        )  # fmt: skip
        self._overruns.inc()

    def batching_ended(self, reason: str) -> None:
        """A batch showed that requests cannot share batches."""
        logger.warning(
            "requests run alone from now on, without batching: %s", reason, extra={"model": "/".join(self._labels)}
        )
        self._batching_ended.inc()

    def serving(self, *, provider: str, rows: Callable[[Lane], float], age_s: Callable[[Lane], float]) -> None:
        """The version is about to serve.

        Args:
            provider: what computes it.
            rows: asked for a lane's waiting rows whenever the page is read.
            age_s: asked for how long the oldest of them waits.
        """
        if self._provider not in (None, provider):  # one that is replaced was on another
            self._metrics.info.remove(*self._labels, self._provider)
        self._provider = provider
        self._metrics.info.labels(*self._labels, provider).set(1)
        for lane in Lane:
            self._metrics.queue_rows.labels(*self._labels, lane.value).set_function(partial(rows, lane))
            self._metrics.queue_age.labels(*self._labels, lane.value).set_function(partial(age_s, lane))

    def watch(self, ask: Ask) -> None:
        """Ask for the version's limits and capacity whenever the page is read."""
        self._metrics.version_facts.watch(ask, *self._labels)

    def on_device(self, batch_limit: Callable[[], float]) -> None:
        """Ask for the rows that a device runs at once, whenever the page is read."""
        self._metrics.batch_limit.labels(*self._labels).set_function(batch_limit)

    def remove(self) -> None:
        """Drop every series of the version."""
        metrics, labels = self._metrics, self._labels
        metrics.batch_limit.labels(*labels).set_function(lambda: 0.0)
        metrics.batch_limit.remove(*labels)
        for metric in (
            metrics.batch_rows, metrics.compute, metrics.queue, metrics.model_duration, metrics.rows, metrics.busy,
            metrics.overruns, metrics.batching_ended,
        ):  # fmt: skip
            metric.remove(*labels)
        for part in _PARTS:
            metrics.parts.remove(*labels, part)
        for direction in ("input", "output"):
            metrics.tensor_bytes.remove(*labels, direction)
        metrics.version_facts.forget(*labels)
        metrics.model_requests.remove(*labels, "answered", "")
        for reason in ("unwanted", "too_long"):
            metrics.runs_ended.remove(*labels, reason)
        with self._lock:
            self._removed = True
            for outcome, reason in self._ended:
                metrics.model_requests.remove(*labels, outcome, reason)
                metrics.refused.remove(*labels, reason)
            for variant in self._degraded:
                metrics.degraded.remove(*labels, variant)
        if self._provider is not None:
            metrics.info.remove(*labels, self._provider)
        for lane in Lane:
            for gauge in (metrics.queue_rows, metrics.queue_age):
                # A gauge with a function refers to itself: what it asks would live until a garbage collection.
                gauge.labels(*labels, lane.value).set_function(lambda: 0.0)
                gauge.remove(*labels, lane.value)


class ServerMetrics:
    """Every metric of one server, in a registry of its own. Thread-safe."""

    def __init__(self) -> None:
        self.registry = PageRegistry()
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], tuple[ModelMetrics, int]] = {}  # with how many instances use them
        self.received = Counter(
            "inferry_requests_received", "RPCs received; equals the sum of outcomes and what is in flight.",
            ["method"], registry=self.registry,
        )  # fmt: skip
        self.outcomes = Counter(
            "inferry_requests_outcome", "RPCs ended, by gRPC status code and kind of error.",
            ["method", "code", "reason"], registry=self.registry,
        )  # fmt: skip
        self.refused = Counter(
            "inferry_requests_refused", "Requests that reached a version and were not computed.",
            ["model", "version", "reason"], registry=self.registry,
        )  # fmt: skip
        self.degraded = Counter(
            "inferry_requests_degraded",
            "Requests for which a version had no room and which were given to a variant of it, by its precision; how "
            "they ended is counted for the variant.",
            ["model", "version", "variant"], registry=self.registry,
        )  # fmt: skip
        self.open_streams = Gauge(
            "inferry_open_streams", "Streaming RPCs open now.", ["method"], registry=self.registry
        )
        self.duration = CallDurations(_SECONDS, registry=self.registry)
        self.model_requests = Counter(
            "inferry_model_requests",
            "Requests that reached a version, those of streams included, by how they ended (answered, refused, failed, "
            "cancelled) and kind of error.",
            ["model", "version", "outcome", "reason"], registry=self.registry,
        )  # fmt: skip
        self.model_duration = Histogram(
            "inferry_model_request_duration_seconds",
            "From the arrival of a request, those of streams included, to its reply.",
            ["model", "version"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.parts = Counter(
            "inferry_model_request_part_seconds",
            "What answered requests took: read, queue, compute, reply; together, the sum of their durations.",
            ["model", "version", "part"], registry=self.registry,
        )  # fmt: skip
        self.busy = Counter(
            "inferry_busy_seconds", "Seconds that instances of a version computed batches.",
            ["model", "version"], registry=self.registry,
        )  # fmt: skip
        self.tensor_bytes = Counter(
            "inferry_tensor_bytes", "Bytes of the tensors of answered requests (input), and of batches (output).",
            ["model", "version", "direction"], registry=self.registry,
        )  # fmt: skip
        self.version_facts = AskedGauges(_VERSION_FACTS, ["model", "version"], registry=self.registry)
        self.server_facts = AskedGauges(_SERVER_FACTS, [], registry=self.registry)
        self.queue = Histogram(
            "inferry_queue_duration_seconds", "From admission to the start of the batch.",
            ["model", "version"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.compute = Histogram(
            "inferry_compute_duration_seconds", "One batch in ONNX Runtime.",
            ["model", "version"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            "inferry_batch_rows", "Rows a batch had.",
            ["model", "version"], buckets=_ROWS, registry=self.registry,
        )  # fmt: skip
        self.rows = Counter("inferry_rows_computed", "Rows computed.", ["model", "version"], registry=self.registry)
        self.overruns = Counter(
            "inferry_inline_overruns",
            "Versions whose batches the thread that reads requests computes no more, because one took far too long.",
            ["model", "version"], registry=self.registry,
        )  # fmt: skip
        self.batching_ended = Counter(
            "inferry_batching_ended",
            "Versions whose requests run alone, because a batch was not answered row by row.",
            ["model", "version"], registry=self.registry,
        )  # fmt: skip
        self.runs_ended = Counter(
            "inferry_runs_ended", "Runs of the model that were ended before they were done (unwanted, too_long).",
            ["model", "version", "reason"], registry=self.registry,
        )  # fmt: skip
        self.hangs = Counter(
            "inferry_hangs", "What took far too long (model_run, reading, inline_batch).",
            ["kind"], registry=self.registry,
        )  # fmt: skip
        self.queue_rows = Gauge(
            "inferry_queue_rows", "Rows waiting now.", ["model", "version", "lane"], registry=self.registry
        )
        self.queue_age = Gauge(
            "inferry_queue_oldest_age_seconds", "How long the oldest request that waits now has waited.",
            ["model", "version", "lane"], registry=self.registry,
        )  # fmt: skip
        self.info = Gauge(
            "inferry_model_info", "1 for every version that is served, with what computes it.",
            ["model", "version", "provider"], registry=self.registry,
        )  # fmt: skip
        self.loads = Counter(
            "inferry_model_loads", "Attempts to load a version, by outcome (ready, failed).",
            ["model", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.ready_models = Gauge("inferry_ready_models", "Versions that can answer now.", registry=self.registry)
        self.ready = Gauge("inferry_ready", "1 while the server is ready for requests.", registry=self.registry)
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
        self.last_load = Gauge(
            "inferry_last_load_timestamp_seconds", "When a version of a model was loaded last, by outcome.",
            ["model", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.last_poll = Gauge(
            "inferry_last_poll_timestamp_seconds", "When the repository was looked at last, by outcome (done, failed).",
            ["outcome"], registry=self.registry,
        )  # fmt: skip
        self.last_self_check = Gauge(
            "inferry_last_self_check_timestamp_seconds",
            "When a model was last compared with its golden samples while serving, by outcome.",
            ["model", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.build = Gauge(
            "inferry_build_info", "1, with the versions of what runs.",
            ["version", "python", "onnxruntime", "grpc"], registry=self.registry,
        )  # fmt: skip
        self.reloads = Counter(
            "inferry_file_reloads", "Files that changed while serving, by outcome (reloaded, failed).",
            ["what", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.certificate_end = Gauge(
            "inferry_tls_not_after_timestamp_seconds",
            "When the first certificate of a TLS file ends, in seconds since the epoch.",
            ["file"], registry=self.registry,
        )  # fmt: skip
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Ask for the open connections whenever the page is read."""
        Gauge(
            "inferry_open_connections", "TCP connections to the gRPC port open now.", registry=self.registry
        ).set_function(count)

    def done(self) -> Done:
        """What balancers want to know: predictions of one message each, and the time of all batches."""
        answered = failed = 0.0
        for (method, code, _), count in self.outcomes.values().items():
            if method.endswith(_PREDICTIONS):
                answered += count if code == "OK" else 0
                failed += count if code in _OVERLOADED else 0
        return Done(self.compute.sums(), round(answered), round(failed))

    def for_method(self, method: str, *, streaming: bool) -> MethodSeries:
        """What one RPC method counts."""
        return MethodSeries(
            self.received.labels(method),
            partial(self.duration.labels, method),
            partial(self.outcomes.labels, method),
            self.open_streams.labels(method) if streaming else None,
        )

    def for_model(self, model: str, version: str) -> ModelMetrics:
        """The metrics of one version, until as many calls of `forget`."""
        with self._lock:
            metrics, users = self._models.get((model, version)) or (ModelMetrics(self, model, version), 0)
            self._models[model, version] = (metrics, users + 1)
            return metrics

    def forget(self, model: str, version: str) -> None:
        """One instance of a version is gone. With the last its series go: versions come, and memory must not grow."""
        with self._lock:
            metrics, users = self._models[model, version]
            if users > 1:
                self._models[model, version] = (metrics, users - 1)
                return
            del self._models[model, version]
            metrics.remove()

    def load_ended(self, model: str, outcome: str) -> None:
        """A version was loaded (`ready`), or could not be (`failed`)."""
        self.loads.labels(model, outcome).inc()
        self.last_load.labels(model, outcome).set_to_current_time()

    def forget_loads(self, model: str) -> None:
        """A model has left the repository."""
        for outcome in ("ready", "failed"):
            self.loads.remove(model, outcome)
            with suppress(KeyError):
                self.last_load.remove(model, outcome)
