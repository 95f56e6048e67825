"""Every metric of the server: its name, its meaning, its labels and its buckets. To add one, declare it here.

Counters, gauges and histograms with the same buckets everywhere: replicas can be added up. Two modules look up the
series of a metric by its labels, for those who count: `metrics.py` for the server, `model_metrics.py` for a version.
"""

from collections.abc import Callable, Sequence

from prometheus_client import Gauge, GCCollector, PlatformCollector, ProcessCollector

from inferry_server.telemetry.counters import AskedGauges, CallDurations, Counter, Histogram
from inferry_server.telemetry.exposition import PageRegistry

# From a request that a small model answers at once to one that waited for an overloaded device.
_SECONDS = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005,
    0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10,
)  # fmt: skip
_VERSION_FACTS: dict[str, tuple[str, Sequence[str]]] = {
    "inferry_instances": ("Batches of a version that can be computed at the same time.", ()),
    "inferry_capacity_rows_per_second": (
        "Rows that full batches would compute a second, by what was learned of their time; 0 before it was measured.",
        (),
    ),
    "inferry_sized_runs": ("Runs of the model since it was loaded, by the rows that they had at most.", ("rows",)),
    "inferry_sized_run_seconds": ("Seconds of these runs, together.", ("rows",)),
    "inferry_quickest_run_seconds": (
        "The quickest of many runs of so many rows when the version was loaded, one right behind the other.",
        ("rows",),
    ),
    "inferry_max_batch_rows": ("Rows of one run at most.", ()),
    "inferry_queue_limit_rows": ("Rows that may wait in each lane.", ()),
    "inferry_queue_rows": ("Rows waiting now.", ("lane",)),
    "inferry_queue_oldest_age_seconds": ("How long the oldest request that waits now has waited.", ("lane",)),
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


class MetricTable:
    """The metrics of one server, in a registry of its own; each metric is thread-safe.

    Attributes:
        registry: what the page shows; each other attribute is a metric.
    """

    def __init__(self) -> None:
        self.registry = PageRegistry()
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
        self.front_ends = Gauge(
            "inferry_front_ends", "Front ends that take connections; none where there are no others than the server.",
            registry=self.registry,
        )  # fmt: skip
        self.front_end_ends = Counter(
            "inferry_front_end_ends", "Front ends that ended though the server did not, and were started again.",
            [], registry=self.registry,
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
        self.replies_unread = Counter(
            "inferry_replies_unread",
            "Replies that were given up because their clients did not read them.",
            [], registry=self.registry,
        )  # fmt: skip
        self.connections_closed = Counter(
            "inferry_connections_closed",
            "Connections to the gRPC port that the server cut off because their peer had too many (peer).",
            ["reason"], registry=self.registry,
        )  # fmt: skip
        self.tls_connections = Counter(
            "inferry_tls_connections",
            "Connections to the gRPC port over TLS: whose handshakes began (accepted), and which had a call, known "
            "where clients show certificates (used).",
            ["stage"], registry=self.registry,
        )  # fmt: skip
        self.http_closures = Counter(
            "inferry_http_connections_closed",
            "HTTP connections that the server closed: where there were too many (crowded), after waiting too long for "
            "the client to send or read (slow) or to ask again (idle), after what is no request (invalid), and after a "
            "TLS handshake that failed (handshake) and the end of the client's certificate or authority (expired).",
            ["reason"], registry=self.registry,
        )  # fmt: skip
        self.certificate_end = Gauge(
            "inferry_tls_not_after_timestamp_seconds",
            "When the first certificate of a TLS file ends, in seconds since the epoch.",
            ["file"], registry=self.registry,
        )  # fmt: skip
        # `increase` does not see what a counter that was not there begins with: rare events are there before them.
        for counter, kinds in (
            (self.hangs, ("model_run", "reading", "inline_batch")),
            (self.device_errors, ("model", "out_of_memory", "lost")),
        ):
            for kind in kinds:
                counter.labels(kind)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Ask for the open connections whenever the page is read."""
        Gauge(
            "inferry_open_connections", "TCP connections to the gRPC port open now.", registry=self.registry
        ).set_function(count)
