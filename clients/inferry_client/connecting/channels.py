"""gRPC channels with Inferry's settings, and gRPC's errors in our words."""

import json
from dataclasses import dataclass
from typing import Any

import grpc

from inferry_client.connecting.addresses import find_host, is_loopback, names_several
from inferry_client.connecting.security import NO_SECURITY, Security
from inferry_client.errors import InferryError, error_from_status
from inferry_client.limits import MAX_MESSAGE_BYTES, check_seconds, check_whole_number

_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_KEEPALIVE_MS = 10_000  # as often as Inferry servers let clients ask; only while calls are under way
_KEEPALIVE_TIMEOUT_MS = 5_000
# gRPC would use no load reports for ten seconds after each new connection, and servers end connections regularly:
# then requests would go round in turn, which a slower replica must refuse. Inferry's reports hold from the first one.
_BY_LOAD: dict[str, object] = {"weighted_round_robin": {"blackoutPeriod": "0s"}}  # guard: connect-reports-believed


@dataclass(frozen=True)
class ChannelSettings:
    """How a channel behaves.

    Attributes:
        connect_timeout_s: how long one attempt to connect may take; gRPC's own 20 s would let a
            silent host eat every deadline.
        max_message_bytes: both ways; -1 is unlimited, and leaves the limit to the server.
        own_connection: do not share the connection with other channels to the same address.
        resend: let gRPC send a request again that no server has seen.
        security: TLS and tokens.
    """

    connect_timeout_s: float = 2.0
    max_message_bytes: int = -1
    own_connection: bool = False
    resend: bool = True
    security: Security = NO_SECURITY

    def __post_init__(self) -> None:
        check_seconds("connect_timeout_s", self.connect_timeout_s)
        check_whole_number("max_message_bytes", self.max_message_bytes, -1, MAX_MESSAGE_BYTES)


def service_config(*, health: bool, spread: bool) -> str:
    """The gRPC service config of a channel.

    Args:
        health: send nothing to servers whose grpc.health.v1 says that they do not serve; those
            without that service count as serving.
        spread: go round all servers behind the address.
    """
    config: dict[str, object] = {}
    if health:
        config["healthCheckConfig"] = {"serviceName": ""}
    if health or spread:  # gRPC checks health only under these policies
        # By their load reports where servers send some, else in turn; gRPC without the former takes the latter.
        by_load: list[dict[str, object]] = [_BY_LOAD] if spread else []
        config["loadBalancingConfig"] = [*by_load, {"round_robin": {}}]
    return json.dumps(config)


def channel_options(address: str, settings: ChannelSettings, *, health: bool) -> list[tuple[str, str | int]]:
    """The arguments that gRPC takes for a channel to `HOST:PORT`.

    Two channels to one address with the same settings share a connection, whether or not they heed health.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", service_config(health=health, spread=names_several(address))),
        ("grpc.enable_retries", int(settings.resend)),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.min_reconnect_backoff_ms", round(settings.connect_timeout_s * 1000)),  # the connect timeout
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),  # gRPC's own 120 s outlast any restart
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.use_local_subchannel_pool", int(settings.own_connection)),
    ]
    if settings.security.server_name:
        options.append(("grpc.ssl_target_name_override", settings.security.server_name))
    if is_loopback(find_host(address)):
        options.append(("grpc.enable_http_proxy", 0))  # no proxy can reach this machine's own loopback
    return options


def open_channel(
    address: str, settings: ChannelSettings, credentials: grpc.ChannelCredentials | None = None, *, health: bool = False
) -> grpc.Channel:
    """A channel to `HOST:PORT`; it connects when it is first used.

    Args:
        address: of the server.
        settings: of the channel.
        credentials: of TLS, made of the settings once for all channels of a client; None: in the clear.
        health: send nothing to a server that says it does not serve.

    Raises:
        InvalidRequestError: not an address.
    """
    options = channel_options(address, settings, health=health)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)


def open_async_channel(
    address: str, settings: ChannelSettings, credentials: grpc.ChannelCredentials | None = None, *, health: bool = False
) -> grpc.aio.Channel:
    """What `open_channel` opens, for asyncio."""
    options = channel_options(address, settings, health=health)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def error_from_rpc(
    error: Any, *, address: str, asked: str, timeout_s: float, closed: bool = False, encrypted: bool = False
) -> InferryError:
    """What a failed RPC means to the caller; `closed`: its client was, which cancels calls."""
    pushback = None
    for key, value in error.trailing_metadata() or ():
        if key == _PUSHBACK_KEY:
            pushback = str(value)
    return error_from_status(
        error.code().name,
        error.details() or "",
        address=address,
        asked=asked,
        timeout_s=timeout_s,
        pushback=pushback,
        closed=closed,
        encrypted=encrypted,
    )
