"""Every setting of the server: its default, the reason for it, and the range it may have."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from inferry_server.addresses import Address, AnyAddress, parse_address
from inferry_server.batching.policy import MOST_BATCH_ROWS
from inferry_server.errors import StartError
from inferry_server.security.hosts import OwnHosts, read_hosts
from inferry_server.settings.contradictions import refuse_without_effect
from inferry_server.telemetry.logs import LOG_FORMATS, LOG_LEVELS

ALIASES = {"http_address": "metrics_address"}
"""Older names of settings, which flags, variables and files may still have."""

ENVIRONMENT_PREFIX = "INFERRY_"
"""Before the name of every setting in the environment."""

MODEL_CONTROLS = ("none", "poll", "explicit")
PROVIDERS = ("auto", "cpu", "cuda", "tensorrt")
CUDNN_SEARCHES = ("heuristic", "exhaustive", "default")
LAYOUTS = ("auto", "on", "off")
TRANSPORTS = ("completion_queue", "aio")
HTTP_INFERENCES = ("auto", "on", "off")
COMPRESSIONS = ("none", "deflate", "gzip")

_AUTO = "auto"
MOST_FRONT_ENDS, _MOST_AUTO_FRONT_ENDS = 64, 8
_CORES_OF_A_FRONT_END = 4


def _setting(default: Any, description: str, *, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"description": description, "choices": choices})


_SAMPLE_RATIO = 0.01  # enough to see what is usual, too few to be felt
_DAY_S = 86_400.0
_LARGEST_INT32 = 2**31 - 1  # gRPC's and ONNX Runtime's integers
RANGES: dict[str, tuple[float, float]] = {
    "poll_interval_s": (0.01, _DAY_S),
    "intra_op_num_threads": (0, 1024),
    "instance_count": (1, 256),
    "max_batch_size": (1, MOST_BATCH_ROWS),
    "max_request_rows": (1, _LARGEST_INT32),
    "max_queue_size": (1, _LARGEST_INT32),
    "max_queue_bytes": (1, 1 << 50),
    "max_total_queue_bytes": (0, 1 << 50),
    "max_reply_bytes": (1 << 10, _LARGEST_INT32),
    "max_queue_delay_us": (0, 60e6),
    "max_variant_loss_points": (0, 100),
    "inline_batch_ms": (0, 1000),
    "latency_objective_ms": (0.001, _DAY_S * 1e3),
    "http_max_connections": (1, 65_535),
    "http_max_connections_per_peer": (0, 65_535),
    "http_max_header_bytes": (1 << 10, 1 << 24),
    "http_read_timeout_s": (0.1, _DAY_S),
    "http_write_timeout_s": (0.1, _DAY_S),
    "max_metadata_bytes": (1 << 10, 1 << 24),
    "max_message_bytes": (1, _LARGEST_INT32),
    "max_message_fields": (64, _LARGEST_INT32),
    "max_connections": (1, 1 << 20),
    "max_connections_per_peer": (0, 1 << 20),
    "max_streams_per_connection": (1, _LARGEST_INT32),
    "max_open_calls": (16, _LARGEST_INT32),
    "stream_idle_timeout_s": (0.1, 365 * _DAY_S),
    "max_connection_age_s": (1, 365 * _DAY_S),
    "max_connection_idle_s": (1, 365 * _DAY_S),
    "request_read_timeout_s": (0.1, _DAY_S),
    "reply_read_timeout_s": (0.1, _DAY_S),
    "keepalive_time_s": (1, _DAY_S),
    "decode_threads": (0, 1024),
    "decode_timeout_s": (0.001, _DAY_S),
    "max_image_pixels": (1, 1 << 32),
    "max_image_scans": (1, _LARGEST_INT32),
    "drain_delay_s": (0, _DAY_S),
    "drain_timeout_s": (0, _DAY_S),
    "model_load_timeout_s": (0.1, _DAY_S),
    "gpu_mem_limit_bytes": (0, 1 << 50),
    "self_check_interval_s": (0, _DAY_S),
    "hang_after_s": (1, _DAY_S),
    "max_run_s": (0.1, _DAY_S),
    "trace_sample_ratio": (0, 1),
    "late_requests": (0, 10_000),
}
"""The least and the most that a number may be."""

AT_LEAST = (("max_request_rows", "max_batch_size"), ("max_queue_size", "max_request_rows"))
"""Settings that are never below another one."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The server's settings, checked. Flags, variables and the keys of a file are named after the fields."""

    repository: Path = field(metadata={"description": "the model repository: <model>/<version>/model.onnx"})
    grpc_address: AnyAddress = _setting(
        Address("127.0.0.1", 8001), "where gRPC listens (8001: where Triton's clients look), or unix:PATH"
    )
    http_address: Address = _setting(
        Address("127.0.0.1", 8002), "where HTTP listens: health, /metrics, and the protocol's REST half"
    )
    http_inference: str = _setting(
        "auto",
        "whether HTTP serves more than health and metrics: auto does on loopback, where gRPC uses no TLS",
        choices=HTTP_INFERENCES,
    )
    http_max_connections: int = _setting(256, "HTTP connections at a time; the longest idle makes room for a new one")
    http_max_connections_per_peer: int = _setting(
        0, "HTTP connections of one address, or of one IPv6 network (/64); 0: three quarters of http_max_connections"
    )
    http_max_header_bytes: int = _setting(64 << 10, "headers of one HTTP request, its path included")
    http_read_timeout_s: float = _setting(
        10.0,
        "how long an HTTP client may take to shake hands, to send headers, and a body besides a second for each 64 KiB",
    )
    http_write_timeout_s: float = _setting(30.0, "how long an HTTP client may take to read what is not buffered for it")
    http_hosts: str | None = _setting(
        None,
        "names by which HTTP is asked, separated by commas, besides localhost and IP addresses; unset: no others on "
        "loopback without TLS, any elsewhere",
    )
    model_control: str = _setting(
        "none",
        "once started: none leaves the models as they are, poll follows the repository, explicit obeys clients",
        choices=MODEL_CONTROLS,
    )
    poll_interval_s: float = _setting(5.0, "how often model_control poll looks for changes of the repository")
    model_load_timeout_s: float = _setting(
        120.0, "how long a version may take to be loaded, warmed and checked; a build of TensorRT may need more"
    )
    provider: str = _setting(
        "auto", "what computes: auto takes CUDA where there is a GPU; cuda and tensorrt demand it", choices=PROVIDERS
    )
    gpu_mem_limit_bytes: int = _setting(
        0, "GPU memory that ONNX Runtime may take for one instance of a model; 0: no limit"
    )
    cudnn_conv_algo_search: str = _setting(
        "heuristic",
        "how cuDNN finds kernels: exhaustive measures all of them when a model loads",
        choices=CUDNN_SEARCHES,
    )
    tf32: bool = _setting(False, "let GPUs round the inputs of float32 products to 10 bits of mantissa")
    cuda_graphs: bool = _setting(True, "record each batch size on the GPU once and replay it, where the model allows")
    prefer_nhwc: str = _setting(
        "auto", "let GPUs lay pictures out with channels last; auto: for models in float16", choices=LAYOUTS
    )
    self_check_interval_s: float = _setting(
        0.0, "how often served models are compared with their golden samples again; 0: never"
    )
    hang_after_s: float = _setting(
        30.0, "the server is not ready while one batch computes for longer, or calls are not read for so long"
    )
    max_run_s: float = _setting(
        600.0, "a batch on the CPU that computes for longer is ended, and its requests fail with INTERNAL"
    )
    intra_op_num_threads: int = _setting(0, "threads that compute a batch; 0: the cores of the container's quota")
    instance_count: int = _setting(1, "batches of one model that run at the same time, each on its share of the cores")
    max_batch_size: int = _setting(32, "rows of one run of the model")
    max_request_rows: int = _setting(256, "rows of one request; larger than a batch, it is cut into several")
    max_queue_size: int = _setting(
        1024, "rows that may wait for one model in each lane; 1024 small images are well under a second"
    )
    max_queue_bytes: int = _setting(256 << 20, "bytes of inputs that may wait for one model in each lane")
    max_total_queue_bytes: int = _setting(
        0, "bytes of inputs that may wait for all models together; 0: four times max_queue_bytes"
    )
    max_reply_bytes: int = _setting(
        1 << 30,
        "bytes that the outputs of one request may have, and those of one batch, as far as their shapes tell before "
        "they are computed",
    )
    max_variant_loss_points: float = _setting(
        0.1,
        "percentage points of accuracy that a variant (int8, float16) may have lost, by its manifest, to answer "
        "requests that accept one where the model has no room for them",
    )
    memory_bound: bool = _setting(
        True,
        "on the CPU, let a request fail whose model asks for more memory than machine and container have left; "
        "without, such a request may end the process",
    )
    max_queue_delay_us: int = _setting(
        0, "how long an idle device waits for a fuller batch; 0: a lone request is served at once"
    )
    inline_batch_ms: float = _setting(
        50.0,
        "batches on the CPU expected to take no longer are computed by the thread that reads requests, "
        "inline: no second thread is woken for them; 0: none are",
    )
    parallel_runs: bool = _setting(
        True,
        "on the CPU, compute several full batches of a model at the same time, one on each core, while they wait; "
        "takes a second copy of its weights",
    )
    latency_objective_ms: float | None = _setting(None, "deadline of requests that carry none; unset: they have none")
    max_message_bytes: int = _setting(64 << 20, "largest request message")
    max_message_fields: int = _setting(
        65_536,
        "fields of one request message, those inside of fields included, and elements of one of its tensors of BYTES; "
        "each takes memory and time to parse that a message's size, above all a compressed one's, says nothing of",
    )
    max_metadata_bytes: int = _setting(
        16 << 10, "metadata of one gRPC call: names, values, and 32 bytes for each; more are refused by gRPC itself"
    )
    compressed_requests: bool = _setting(
        True, "take requests that are compressed (gzip, deflate); without, they are refused with UNIMPLEMENTED"
    )
    transport: str = _setting(
        "completion_queue",
        "what drives gRPC: its completion queue, or grpc.aio, which is public and takes three times the CPU",
        choices=TRANSPORTS,
    )
    front_ends: str = _setting(
        "0",
        "processes that speak gRPC with clients, beside the one that has the models; 0: that one does it itself; auto: "
        "one for every four cores beyond the first four, eight at most",
    )
    max_connections: int = _setting(
        10_000,
        "gRPC connections at a time, fewer where the process may not open as many files; further ones are closed",
    )
    max_connections_per_peer: int = _setting(
        0,
        "gRPC connections of one address, or of one IPv6 network (/64); further ones are closed; 0: three quarters of "
        "max_connections, so that a proxy may speak for all clients and nobody takes the last ones (on Linux)",
    )
    max_streams_per_connection: int = _setting(
        1024, "calls at a time on one connection; a client keeps further ones waiting itself"
    )
    max_open_calls: int = _setting(
        32_768,
        "calls at a time that wait for their clients: streams, and unary calls without a request; of more, those end "
        "whose clients have been silent for longest",
    )
    stream_idle_timeout_s: float = _setting(
        3600.0, "how long the client of a stream may take to send the next message once all its requests have replies"
    )
    max_connection_age_s: float | None = _setting(
        None,
        "age at which a client is asked to open a new connection, so that load balancers spread them; unset: never",
    )
    max_connection_idle_s: float = _setting(
        300.0, "a connection without a call for so long is closed; clients connect again by themselves"
    )
    request_read_timeout_s: float = _setting(
        120.0, "how long the request message of a unary call may take to come; 120 s is 64 MiB at 0.5 MiB/s"
    )
    reply_read_timeout_s: float = _setting(
        600.0,
        "how long a client may take to read a reply, of a stream each; then the call is ended, the reply freed",
    )
    keepalive_time_s: float = _setting(7200.0, "time without data after which a connection is probed")
    response_compression: str = _setting(
        "none", "compression of replies, for clients that accept it", choices=COMPRESSIONS
    )
    tls_certificate: Path | None = _setting(None, "PEM file with the certificate chain; unset: no TLS")
    tls_private_key: Path | None = _setting(None, "PEM file with the certificate's key")
    tls_client_ca: Path | None = _setting(None, "PEM file; only clients with a certificate from it are let in")
    metrics_without_certificate: bool = _setting(
        False, "tell /metrics to clients without a certificate too, unencrypted where HTTP has no TLS (tls_client_ca)"
    )
    model_key: Path | None = _setting(
        None, "PEM file with a public key: only models that are signed with it are served; needs the extra signing"
    )
    access_policy: Path | None = _setting(
        None,
        "TOML file: which tokens and client certificates may infer, read or administer; unset: all callers may do all",
    )
    decode_threads: int = _setting(0, "threads that decode pictures; 0: as many as compute")
    decode_timeout_s: float = _setting(10.0, "how long the pictures of one request may be decoded")
    max_image_pixels: int = _setting(
        64 << 20,
        "pixels of a picture, before it is resized; at most 1024 for each pixel that the model takes, or 16 Mi",
    )
    max_image_scans: int = _setting(100, "scans of a JPEG; encoders write 10, and each costs as much as a picture")
    drain_delay_s: float = _setting(
        0.0, "how long to go on serving after SIGTERM while not ready, so that load balancers notice"
    )
    drain_timeout_s: float = _setting(30.0, "how long accepted requests may take to finish after that")
    report_load: bool = _setting(
        False, "tell the load with each reply (ORCA), for gRPC's and Envoy's weighted round robin"
    )
    system_shared_memory: bool = _setting(
        False, "let clients pass tensors in POSIX shared memory; only where all of them are trusted"
    )
    remote_logging_control: bool = _setting(False, "let clients change what is logged (LogSettings)")
    log_format: str = _setting("text", "lines for people or JSON for machines", choices=LOG_FORMATS)
    log_level: str = _setting("info", "the least severe level that is logged", choices=LOG_LEVELS)
    trace_endpoint: str | None = _setting(
        None, "OpenTelemetry collector that traces go to by OTLP over gRPC: http://HOST:PORT, https:// for TLS"
    )
    trace_sample_ratio: float = _setting(
        _SAMPLE_RATIO, "share of the requests without a `traceparent` that is traced; with one, the caller decides"
    )
    late_requests: int = _setting(
        32, "how many of each version's slowest and refused requests are kept, to be explained; 0: none"
    )
    strict: bool = _setting(False, "exit if any model of the repository does not load")
    verbose: bool = _setting(False, "show tracebacks")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            StartError: names the setting, the value and the accepted range.
        """
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            self._require(name, value is None or least <= value <= most, f"{least:g} to {most:g}")
        for name, other in AT_LEAST:
            self._require(name, getattr(self, name) >= getattr(self, other), f"at least {other}")
        total = self.max_total_queue_bytes
        is_enough = not total or total >= 2 * self.max_queue_bytes  # a full lane fits into the half for everybody
        self._require("max_total_queue_bytes", is_enough, "0, or at least twice max_queue_bytes")
        for name in (
            "model_control", "provider", "cudnn_conv_algo_search", "transport", "response_compression",
            "http_inference", "log_format", "log_level",
        ):  # fmt: skip
            choices = next(f.metadata["choices"] for f in fields(self) if f.name == name)
            self._require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        if self.trace_endpoint is not None:
            self._require("trace_endpoint", _is_collector(self.trace_endpoint), "http://HOST:PORT or https://HOST:PORT")
        self._require("front_ends", _is_front_ends(self.front_ends), f"auto, or 0 to {MOST_FRONT_ENDS}")
        if self.http_hosts is not None:
            self._require("http_hosts", _are_hosts(self.http_hosts), "names without ports, separated by commas")
        refuse_without_effect(self)

    @property
    def serves_http_inference(self) -> bool:
        """Whether HTTP answers more than health and metrics."""
        on_loopback = self.http_address.is_loopback and self.tls_certificate is None
        return self.http_inference == "on" or (self.http_inference == "auto" and on_loopback)

    @property
    def tells_metrics(self) -> bool:
        """Whether clients without a certificate may read the metrics."""
        return self.tls_client_ca is None or self.metrics_without_certificate

    @property
    def own_hosts(self) -> OwnHosts:
        """What requests over HTTP may name in `Host`. With TLS, the certificate tells pages of other names apart."""
        if self.http_hosts is not None:
            return OwnHosts(read_hosts(self.http_hosts))
        has_tls = self.tls_certificate is not None and self.serves_http_inference
        return OwnHosts(frozenset() if self.http_address.is_loopback and not has_tls else None)

    def front_end_count(self, cores: int) -> int:
        """How many front ends to start; 0: none.

        Args:
            cores: that this process has.
        """
        if self.front_ends != _AUTO:
            return int(self.front_ends)
        is_plain = isinstance(self.grpc_address, Address) and self.transport == "completion_queue"
        return min(_MOST_AUTO_FRONT_ENDS, max(0, cores // _CORES_OF_A_FRONT_END - 1)) if is_plain else 0

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise StartError(f"setting {name} is {getattr(self, name)}; expected {expected}")


def _is_front_ends(text: str) -> bool:
    return text == _AUTO or (text.isascii() and text.isdigit() and int(text) <= MOST_FRONT_ENDS)


def _are_hosts(text: str) -> bool:
    try:
        return bool(read_hosts(text))
    except ValueError:
        return False


def _is_collector(text: str) -> bool:
    scheme, _, address = text.partition("://")
    try:
        return scheme in ("http", "https") and parse_address(address).port > 0
    except ValueError:
        return False
