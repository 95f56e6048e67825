"""Values that do not go together: a setting that can change nothing stops the start, what is hardly meant is told."""

from dataclasses import fields
from typing import TYPE_CHECKING

from inferry_server.addresses import UnixAddress
from inferry_server.errors import StartError

if TYPE_CHECKING:
    from inferry_server.settings.settings import Settings

_MOST_THREADS_PER_CORE = 2  # up to here, threads that wait for memory may still pay
_OF_GPUS = ("gpu_mem_limit_bytes", "cudnn_conv_algo_search", "tf32", "cuda_graphs", "prefer_nhwc")


def refuse_without_effect(settings: "Settings") -> None:
    """A setting that can change nothing is a mistake of whoever set it.

    Raises:
        StartError: names the setting, its value, and the one beside which it has no effect.
    """
    if (settings.tls_certificate is None) != (settings.tls_private_key is None):
        raise StartError("settings tls_certificate and tls_private_key belong together; one of them is missing")
    if settings.response_compression != "none" and not settings.compressed_requests:
        raise StartError(
            f"setting response_compression is {settings.response_compression} and has no effect with "
            "no-compressed-requests: gRPC turns both off; leave one of them out"
        )
    if isinstance(settings.grpc_address, UnixAddress) and settings.front_ends not in ("auto", "0"):
        raise StartError(
            f"setting front_ends is {settings.front_ends} and grpc_address is {settings.grpc_address}: front ends "
            "share a port, and a Unix domain socket has one listener; set front_ends to 0, or grpc_address to HOST:PORT"
        )
    if settings.tls_client_ca is not None and settings.tls_certificate is None:
        raise StartError("setting tls_client_ca has no effect without tls_certificate and tls_private_key")
    if settings.metrics_without_certificate and settings.tls_client_ca is None:
        raise StartError(
            "setting metrics_without_certificate has no effect without tls_client_ca: /metrics asks for no "
            "certificate then"
        )
    delay_us, objective_ms = settings.max_queue_delay_us, settings.latency_objective_ms
    if delay_us and settings.max_batch_size == 1:
        raise StartError(
            f"setting max_queue_delay_us is {delay_us} and has no effect while max_batch_size is 1: a batch of "
            "one row is full at once; set the delay to 0, or max_batch_size above 1"
        )
    if delay_us and objective_ms is not None and delay_us >= objective_ms * 1e3:
        raise StartError(
            f"setting max_queue_delay_us is {delay_us}, and latency_objective_ms is {objective_ms}: who waits for "
            "the whole delay is late already; expected a delay below the objective"
        )
    if settings.trace_endpoint is None and _changed(settings, "trace_sample_ratio") is not None:
        raise StartError(
            f"setting trace_sample_ratio is {settings.trace_sample_ratio} and has no effect without trace_endpoint: "
            "say where traces go, or leave the ratio away"
        )
    if settings.provider == "cpu" and (name := _changed(settings, *_OF_GPUS)) is not None:
        raise StartError(
            f"setting {name} is {getattr(settings, name)} and has no effect while provider is cpu; leave it out, or "
            "choose another provider"
        )


def warnings(settings: "Settings", cores: int) -> tuple[str, ...]:
    """What is allowed and hardly meant, a sentence each.

    Args:
        settings: as read.
        cores: that this process has.
    """
    threads = settings.instance_count * max(1, settings.intra_op_num_threads)
    if threads <= _MOST_THREADS_PER_CORE * cores:
        return ()
    return (
        f"settings instance_count and intra_op_num_threads make {threads} threads compute each model, on {cores} "
        "cores; more threads than cores only wait for one another",
    )


def _changed(settings: "Settings", *names: str) -> str | None:
    """The first of these settings that has another value than by default."""
    defaults = {f.name: f.default for f in fields(settings)}
    return next((name for name in names if getattr(settings, name) != defaults[name]), None)
