"""What the settings mean for each room of the server: its own options, in its own units."""

from collections.abc import Callable

from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.shared_room import SharedRoom
from inferry_server.front_ends.plan import FrontEndPlan
from inferry_server.runtime.cuda_options import CudaOptions
from inferry_server.services.control import EXTENSIONS, MODEL_CONTROL_EXTENSIONS, SHARED_MEMORY_EXTENSIONS
from inferry_server.services.pictures import PictureLimits
from inferry_server.settings.settings import Settings
from inferry_server.telemetry.load_report import LoadReport
from inferry_server.transport.connections import affordable_connections, share_of_peer
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.tls import ServerTls


def batching_policy(settings: Settings) -> BatchingPolicy:
    """The limits of queues and batches, of models that state none."""
    return BatchingPolicy(
        max_batch_size=settings.max_batch_size,
        max_request_rows=settings.max_request_rows,
        max_reply_bytes=settings.max_reply_bytes,
        max_queue_size=settings.max_queue_size,
        max_queue_bytes=settings.max_queue_bytes,
        max_queue_delay_s=settings.max_queue_delay_us / 1e6,
    )


def shared_room(settings: Settings) -> SharedRoom:
    """What may wait for all models together."""
    return SharedRoom(settings.max_total_queue_bytes or 4 * settings.max_queue_bytes)


def objective_s(settings: Settings) -> float | None:
    """The deadline of requests that carry none, of models that state none."""
    return None if settings.latency_objective_ms is None else settings.latency_objective_ms / 1e3


def cuda_options(settings: Settings) -> CudaOptions:
    """How a GPU computes."""
    return CudaOptions(
        gpu_mem_limit_bytes=settings.gpu_mem_limit_bytes,
        cudnn_conv_algo_search=settings.cudnn_conv_algo_search,
        tf32=settings.tf32,
        cuda_graphs=settings.cuda_graphs and settings.provider != "tensorrt",  # which has graphs of its own
        prefer_nhwc=settings.prefer_nhwc,
    )


def picture_limits(settings: Settings) -> PictureLimits:
    """What decoding a picture may cost."""
    return PictureLimits(settings.max_image_pixels, settings.max_image_scans, settings.decode_timeout_s)


def transport_options(
    settings: Settings, watch: Callable[[ServerTls], object], report: LoadReport | None = None
) -> TransportOptions:
    """Limits and security of the gRPC port's connections.

    Args:
        settings: as read.
        watch: called with the TLS of the port that is about to listen.
        report: of the load, for replies; None where the settings ask for none.
    """
    connections = affordable_connections(settings.max_connections, others=settings.http_max_connections)
    return TransportOptions(
        max_message_bytes=settings.max_message_bytes,
        max_metadata_bytes=settings.max_metadata_bytes,
        max_streams=settings.max_streams_per_connection,
        max_connections=connections,
        max_connections_per_peer=share_of_peer(settings.max_connections_per_peer, of=connections),
        max_connection_age_s=settings.max_connection_age_s,
        max_connection_idle_s=settings.max_connection_idle_s,
        max_open_calls=settings.max_open_calls,
        stream_idle_timeout_s=settings.stream_idle_timeout_s,
        request_read_timeout_s=settings.request_read_timeout_s,
        reply_read_timeout_s=settings.reply_read_timeout_s,
        keepalive_time_s=settings.keepalive_time_s,
        compression=settings.response_compression,
        compressed_requests=settings.compressed_requests,
        certificate=settings.tls_certificate,
        private_key=settings.tls_private_key,
        client_ca=settings.tls_client_ca,
        report=report,
        watch=watch,
    )


def front_end_plan(settings: Settings, options: TransportOptions) -> FrontEndPlan:
    """How front ends serve, as far as the settings say.

    Args:
        settings: as read.
        options: of the connections.
    """
    return FrontEndPlan(
        address=str(settings.grpc_address),
        transport=settings.transport,
        options=options,
        most_unsent_bytes=settings.max_total_queue_bytes or 4 * settings.max_queue_bytes,
        log_format=settings.log_format,
        log_level=settings.log_level,
    )


def extensions(settings: Settings) -> tuple[str, ...]:
    """What works with these settings, as the protocol names it."""
    model_control = MODEL_CONTROL_EXTENSIONS if settings.model_control == "explicit" else ()
    shared_memory = SHARED_MEMORY_EXTENSIONS if settings.system_shared_memory else ()
    return (*EXTENSIONS, *model_control, *shared_memory)
