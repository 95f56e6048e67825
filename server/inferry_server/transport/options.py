"""What both transports tell gRPC."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inferry_server.addresses import AnyAddress, UnixAddress
from inferry_server.errors import StartError
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.security.watching import Contents
from inferry_server.telemetry.load_report import LoadReport
from inferry_server.transport.tls import ServerTls

# A client may ping as often as every ten seconds, calls or not: load balancers do.
_MIN_PING_INTERVAL_MS = 10_000
# By default gRPC ends a call as CANCELLED that no server has taken for half a minute, although its client still waits.
# Here a call's deadline says how long it may wait, and the bounds on connections how many calls may.
_KEPT_UNREAD_S = 2**31 - 1
# For a client to shake hands, TLS included, and to send its HTTP/2 settings; by default gRPC waits two minutes.
_HANDSHAKE_S = 20.0
_IDENTITY_ALONE = 1  # a bit for each algorithm, the first for none
_COMPRESSIONS = {"none": None, "deflate": 1, "gzip": 2}  # grpc/impl/compression_types.h


@dataclass(frozen=True, kw_only=True)
class TransportOptions:
    """Limits and security of the connections.

    Attributes:
        max_message_bytes: the largest request.
        max_metadata_bytes: of one call.
        max_streams: calls at a time on one connection; a client keeps further ones to itself.
        max_connections: open at a time; further ones are closed as soon as they are accepted.
        max_connections_per_peer: of them, from one address; further ones are closed soon (`peers.py`).
        max_connection_age_s: after it, clients are asked to connect again, so that balancers spread them; None: never.
        max_connection_idle_s: without a call, after which a connection is closed; clients connect again when they ask.
        max_open_calls: that wait for their clients: streams, and unary calls without a request. Of more, those end
            whose clients have been silent for longest.
        stream_idle_timeout_s: for the client of a stream to send the next message.
        request_read_timeout_s: for the message of a unary call to come whole.
        reply_read_timeout_s: for the client to read a reply.
        keepalive_time_s: of silence, after which a connection is asked whether it lives.
        compression: of replies, for clients that accept it: `none`, `deflate` or `gzip`.
        compressed_requests: whether compressed requests are taken; `compression` must be `none` where they are not.
        certificate: PEM file with the server's certificate chain; None: no TLS.
        private_key: PEM file with its key.
        client_ca: PEM file with the authorities whose clients are let in; None: everybody is.
        contents: what these files hold, where another process has read them; None: they are read.
        client_certificates: says whether the certificates of open connections still hold, where `client_ca` is set.
        shares_port: whether other processes of this server listen at the same port.
        report: whose metadata goes with the reply of every unary call; None: none does.
        watch: called with the TLS of a port that is about to listen, whose files may be exchanged.
    """

    max_message_bytes: int
    max_streams: int
    max_metadata_bytes: int = 16 << 10
    max_connections: int = 10_000
    max_connections_per_peer: int = 7_500
    max_connection_age_s: float | None = None
    max_connection_idle_s: float = 300.0
    max_open_calls: int = 32_768
    stream_idle_timeout_s: float = 3600.0
    request_read_timeout_s: float = 120.0
    reply_read_timeout_s: float = 600.0
    keepalive_time_s: float = 7200.0
    compression: str = "none"
    compressed_requests: bool = True
    certificate: Path | None = None
    private_key: Path | None = None
    client_ca: Path | None = None
    contents: Contents | None = field(default=None, repr=False)  # a key among them
    client_certificates: ClientCertificates = field(default_factory=ClientCertificates)
    shares_port: bool = False
    report: LoadReport | None = None
    watch: Callable[[ServerTls], object] = lambda _: None

    def arguments(self) -> list[tuple[str, int | str]]:
        """The channel arguments of gRPC."""
        arguments: list[tuple[str, int | str]] = [
            ("grpc.so_reuseport", int(self.shares_port)),  # else a second server would be given half the calls
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # The same for both: gRPC refuses calls at random whose metadata lie between the two.
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.keepalive_time_ms", int(self.keepalive_time_s * 1e3)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
        ]
        arguments.append(("grpc.server_max_unrequested_time_in_server", _KEPT_UNREAD_S))  # guard: unread-kept
        arguments.append(("grpc.server_handshake_timeout_ms", int(_HANDSHAKE_S * 1e3)))  # guard: handshakes-late
        arguments.append(("grpc.max_allowed_incoming_connections", self.max_connections))  # guard: connections-bounded
        # It also ends connections that gRPC's own polling still holds although their clients have gone.
        arguments.append(
            ("grpc.max_connection_idle_ms", int(self.max_connection_idle_s * 1e3))
        )  # guard: connections-idle
        if self.max_connection_age_s is not None:
            arguments.append(("grpc.max_connection_age_ms", int(self.max_connection_age_s * 1e3)))
        if not self.compressed_requests:
            arguments.append(("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ALONE))
        algorithm = _COMPRESSIONS[self.compression]
        if algorithm is not None:
            arguments.append(("grpc.default_compression_algorithm", algorithm))
        return arguments

    def open_tls(self) -> ServerTls | None:
        """TLS as the settings say; None for connections in the clear.

        Raises:
            StartError: a file cannot be read, or is not what it should be.
        """
        if self.certificate is None or self.private_key is None:
            return None
        tls = ServerTls(
            self.certificate,
            self.private_key,
            self.client_ca,
            self.contents,
            exchanged=self.client_certificates.exchange,
        )
        self.watch(tls)
        return tls

    @property
    def certificates_of_clients(self) -> ClientCertificates | None:
        """Says whether certificates still hold; None where clients show none."""
        return None if self.client_ca is None else self.client_certificates


def refuse_taken(address: AnyAddress) -> None:
    """Refuse a Unix domain socket at which another server listens: gRPC would replace it.

    Raises:
        StartError: there is another server.
    """
    if isinstance(address, UnixAddress) and address.is_answered():  # guard: unix-socket-taken
        raise cannot_bind(address)


def cannot_bind(address: AnyAddress) -> StartError:
    """The error for an address that gRPC refuses."""
    return StartError(
        f"gRPC address {address} cannot be bound: it is in use or not of this machine; "
        "free the port or choose another with --grpc-address"
    )
