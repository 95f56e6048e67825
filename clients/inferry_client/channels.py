"""gRPC channels with Inferry's settings: the transport below the synchronous client."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

import grpc

from inferry_client.errors import InferryError, InvalidRequestError, error_from_status
from inferry_client.limits import MAX_MESSAGE_BYTES, check_seconds
from inferry_client.retries import DEFAULT_RETRIES, RetryPolicy, service_config

_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_MILLISECONDS = re.compile(r"[0-9]{1,8}")  # up to some 28 hours; who asks for more is not believed
_SCHEMES = ("unix:", "dns:", "ipv4:", "ipv6:", "xds:")
_HOST_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/]+):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class ChannelSettings:
    """How a channel behaves.

    Attributes:
        retries: what gRPC does by itself when a server is away or full.
        connect_timeout_s: how long one attempt to connect may take; gRPC's own 20 s would let a
            silent host eat every deadline.
        max_message_bytes: both ways; -1 is unlimited, and leaves the limit to the server.
        own_connection: do not share the connection with other channels to the same address.
    """

    retries: RetryPolicy = DEFAULT_RETRIES
    connect_timeout_s: float = 2.0
    max_message_bytes: int = -1
    own_connection: bool = False

    def __post_init__(self) -> None:
        check_seconds("connect_timeout_s", self.connect_timeout_s)
        if not -1 <= self.max_message_bytes <= MAX_MESSAGE_BYTES:
            raise ValueError(
                f"max_message_bytes is {self.max_message_bytes}; expected -1 (unlimited) or up to {MAX_MESSAGE_BYTES}"
            )


def open_channel(address: str, settings: ChannelSettings) -> grpc.Channel:
    """A channel to `HOST:PORT`; it connects when it is first used.

    Raises:
        InvalidRequestError: not an address.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", service_config(settings.retries)),
        ("grpc.enable_retries", int(settings.retries.max_attempts > 1)),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.min_reconnect_backoff_ms", round(settings.connect_timeout_s * 1000)),  # the connect timeout
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),  # gRPC's own 120 s outlast any restart
        ("grpc.use_local_subchannel_pool", int(settings.own_connection)),
    ]
    if _is_loopback(check_address(address)):
        options.append(("grpc.enable_http_proxy", 0))  # no proxy can reach this machine's own loopback
    return grpc.insecure_channel(address, options=options)


def check_address(address: str) -> str:
    """The host of an address; empty for gRPC's own schemes (`unix:`, `dns:`).

    Raises:
        InvalidRequestError: neither HOST:PORT nor one of those.
    """
    if address.startswith(_SCHEMES):
        return ""
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise InvalidRequestError(f"{address!r} is not a server's address; expected HOST:PORT, like 127.0.0.1:8001")
    return match["host"].strip("[]")


def error_from_rpc(
    error: grpc.RpcError, *, address: str, asked: str, timeout_s: float, closed: bool = False
) -> InferryError:
    """What a failed RPC means to the caller; `closed`: its client was, which cancels calls."""
    retry_after_s = None
    trailing: Any = error.trailing_metadata()  # key and value pairs; the stubs say one pair
    for key, value in trailing or ():
        if key == _PUSHBACK_KEY and _MILLISECONDS.fullmatch(str(value)):
            retry_after_s = int(value) / 1000
    return error_from_status(
        error.code().name,
        error.details() or "",
        address=address,
        asked=asked,
        timeout_s=timeout_s,
        retry_after_s=retry_after_s,
        closed=closed,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
