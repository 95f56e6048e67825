"""Bounds against greed that both transports keep: calls without a request, idle connections, watchers' names."""

import resource
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from bench.attacks.frames import DATA, Peer, frame, headers, message
from inferry_server.addresses import Address
from inferry_server.rpc.call import Call
from inferry_server.rpc.router import Router
from inferry_server.services.health import HealthService
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport import half_sent
from inferry_server.transport.connections import affordable_connections
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import Transport, make_transport
from testkit.servers import ANY_PORT
from testkit.transports import moved_clock, on_their_way
from testkit.waiting import SOON_S, wait_until

KEEP, CHECK, WATCH = "/test/Keep", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
LIMIT_S = 120.0
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty SETTINGS
OPTIONS = TransportOptions(max_message_bytes=1 << 20, max_streams=10, request_read_timeout_s=LIMIT_S)


class Running(SimpleNamespace):
    """A transport whose clock the test moves, with the calls that wait in it."""

    transport: Transport
    router: Router
    address: Address
    kept: list[Call]
    trimmed: list[str]
    advance: Callable[[float], None]


@pytest.fixture
def server(transport: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    router = Router(ServerMetrics())
    health = HealthService(lambda: True, lambda _: None)
    kept: list[Call] = []
    trimmed: list[str] = []
    monkeypatch.setattr(half_sent.HalfSent.__init__, "__defaults__", (lambda: trimmed.append("once"),))
    router.add_unary({KEEP: lambda call, _: kept.append(call), **health.unary_handlers()})
    router.add_streams(health.stream_handlers())
    made = make_transport(transport, router, OPTIONS)
    with moved_clock(made, monkeypatch) as advance:
        address = made.start(ANY_PORT)
        yield Running(transport=made, router=router, address=address, kept=kept, trimmed=trimmed, advance=advance)
        made.stop(0)


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.address)) as opened:
        yield opened


class Silent:
    """A call whose headers came and whose message does not."""

    def __init__(self, server: Running, channel: grpc.Channel) -> None:
        in_flight = server.router.unary_in_flight()
        self._gone = threading.Event()

        def nothing() -> Iterator[bytes]:
            self._gone.wait()  # for as long as the test looks: else the client would leave by itself
            yield from ()

        stub: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(KEEP)
        self._call: Any = stub.future(nothing(), timeout=10 * LIMIT_S)
        wait_until(lambda: server.router.unary_in_flight() > in_flight, "the call to arrive")

    def cancel(self) -> None:
        self._call.cancel()
        self._gone.set()

    def end(self) -> Any:
        error = self._call.exception(SOON_S)
        self._gone.set()
        assert isinstance(error, grpc.RpcError)
        return error


def test_a_unary_call_whose_request_does_not_come_in_time_is_ended_and_others_wait_on(
    server: Running, channel: grpc.Channel
) -> None:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(KEEP)
    asked: Any = stub.future(b"asked", timeout=10 * LIMIT_S)
    wait_until(lambda: bool(server.kept), "the request to arrive")
    late = Silent(server, channel)
    server.advance(LIMIT_S / 2)
    young = Silent(server, channel)
    server.advance(LIMIT_S / 2)

    def looked() -> bool:
        server.transport.look()
        return server.router.unary_in_flight() == 2

    wait_until(looked, "the silent call to be ended")
    error: Any = late.end()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "within 120 s (setting request_read_timeout_s)" in error.details()
    wait_until(lambda: server.transport.look() >= 0 and bool(server.trimmed), "memory to be given back")
    assert server.trimmed == ["once"]
    server.kept[0].reply(b"answer")
    assert asked.result(SOON_S) == b"answer"
    server.transport.stop(0)
    young.end()


def test_what_a_client_has_sent_of_a_request_before_it_left_goes_back(server: Running, channel: grpc.Channel) -> None:
    gone = Silent(server, channel)
    gone.cancel()
    wait_until(lambda: server.router.unary_in_flight() == 0, "the server to notice")
    wait_until(lambda: server.transport.look() >= 0 and bool(server.trimmed), "memory to be given back")
    assert server.trimmed == ["once"]


def test_a_reply_that_its_client_does_not_read_in_time_is_given_up(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, kept, trimmed = ServerMetrics(), list[Call](), list[str]()
    router = Router(metrics)
    router.add_unary({KEEP: lambda call, _: kept.append(call)})
    monkeypatch.setattr(half_sent.HalfSent.__init__, "__defaults__", (lambda: trimmed.append("once"),))
    options = TransportOptions(max_message_bytes=1 << 20, max_streams=10, reply_read_timeout_s=LIMIT_S)
    made = make_transport(transport, router, options)

    def given_up() -> int:
        made.look()
        return int(sum(metrics.replies_unread.values().values()))

    with moved_clock(made, monkeypatch) as advance:
        address = made.start(ANY_PORT)
        peers = [Peer(address.port, window=window) for window in (0, 1 << 16)]
        for peer in peers:
            peer.send(headers(KEEP) + frame(DATA, 1, 1, message(b"")))
        wait_until(lambda: len(kept) == len(peers), "the requests")
        for call in kept:
            call.reply(bytes(1000))
        kept.clear()
        wait_until(lambda: all(map(was_answered, peers)) and on_their_way(made) == 1, "one of them to be read")
        advance(LIMIT_S / 2)
        with grpc.insecure_channel(str(address)) as channel:
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(KEEP)
            made.look()
            asked = stub.future(b"")
            wait_until(lambda: bool(kept), "a later request")
            assert given_up() == 0
            advance(LIMIT_S / 2)
            wait_until(lambda: given_up() == 1, "the reply to be given up")
            wait_until(lambda: made.look() >= 0 and bool(trimmed), "memory to be given back")
            kept[0].reply(b"late")
            assert asked.result(SOON_S) == b"late"
        deaf, reading = peers
        wait_until(lambda: made.look() >= 0 and bool(looked_at(deaf)), "the call to end, over aio its connection")
        assert looked_at(deaf) == Counter({"closed" if transport == "aio" else "reset": 1})
        assert not looked_at(reading)
        for peer in peers:
            peer.close()
        assert given_up() == 1
        made.stop(0)


def was_answered(peer: Peer) -> bool:
    """Whether the server has begun to reply."""
    peer.look(0.01)
    return peer.seen["answered"] > 0


def looked_at(peer: Peer) -> Counter[str]:
    """How the server ended a call, or its connection."""
    peer.look(0.1)
    return Counter({how: peer.seen[how] for how in ("reset", "closed") if peer.seen[how]})


def answers(address: Address) -> tuple[socket.socket, bool]:
    """A new connection, and whether the server says anything on it before it closes it."""
    connection = socket.create_connection((address.host, address.port), timeout=SOON_S)
    connection.sendall(HTTP2_PREFACE)
    try:
        return connection, bool(connection.recv(1))
    except ConnectionResetError:
        return connection, False


def test_more_connections_than_the_limit_are_closed_until_one_has_gone(transport: str) -> None:
    options = TransportOptions(max_message_bytes=1, max_streams=1, max_connections=2)
    made = make_transport(transport, Router(ServerMetrics()), options)
    address = made.start(ANY_PORT)
    connections = []
    try:
        for expected in (True, True, False):
            connection, answered = answers(address)
            connections.append(connection)
            assert answered is expected
        connections[0].close()

        def room() -> bool:
            connection, answered = answers(address)
            connections.append(connection)
            return answered

        wait_until(room, "room for another connection")
    finally:
        for connection in connections:
            connection.close()
        made.stop(0)


@pytest.mark.parametrize(
    ("files", "expected"), [(1024, 640), (100_000, 10_000), (200, 16), (resource.RLIM_INFINITY, 10_000)]
)
def test_there_are_no_more_connections_than_the_process_has_descriptors_for(files: int, expected: int) -> None:
    assert affordable_connections(10_000, others=256, files=files) == expected


def test_no_more_calls_of_a_connection_reach_the_server_than_the_limit(server: Running, channel: grpc.Channel) -> None:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(KEEP)
    begun = [stub.future(b"") for _ in range(3 * OPTIONS.max_streams)]
    wait_until(lambda: len(server.kept) == OPTIONS.max_streams, "as many calls as may be open")
    with grpc.insecure_channel(str(server.address), options=[("grpc.use_local_subchannel_pool", 1)]) as another:
        other: grpc.UnaryUnaryMultiCallable[bytes, bytes] = another.unary_unary(KEEP)
        one = other.future(b"")
        wait_until(lambda: len(server.kept) == OPTIONS.max_streams + 1, "a call of another connection")
        server.kept[-1].reply(b"answer")
        assert one.result(SOON_S) == b"answer"
    assert server.router.unary_in_flight() == OPTIONS.max_streams
    for call in begun:
        call.cancel()


def test_connections_without_calls_are_closed_after_the_time_that_is_set() -> None:
    options = TransportOptions(max_message_bytes=1, max_streams=1, max_connection_idle_s=7.5)
    assert ("grpc.max_connection_idle_ms", 7500) in options.arguments()


def outcomes(metrics: ServerMetrics) -> Counter[str]:
    """The calls that have ended, by status."""
    samples = (sample for family in metrics.outcomes.collect() for sample in family.samples)
    totals = (sample for sample in samples if sample.name.endswith("_total") and sample.value)
    return Counter({sample.labels["code"]: int(sample.value) for sample in totals})


def test_metadata_is_bounded_and_no_call_below_the_bound_is_refused_by_chance(transport: str) -> None:
    metrics = ServerMetrics()
    router = Router(metrics)
    router.add_unary({KEEP: lambda call, _: call.reply(b"answer")})
    made = make_transport(transport, router, replace(OPTIONS, max_streams=1000, max_metadata_bytes=30_000))
    try:
        with grpc.insecure_channel(str(made.start(ANY_PORT))) as channel:
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(KEEP)
            codes = [
                stub.future(b"", metadata=(("x-large", "x" * size),), timeout=SOON_S).code()
                for size in [29_000] * 20 + [30_000]
            ]
            wait_until(lambda: outcomes(metrics)["CANCELLED"] == 1, "the count of the one that gRPC refused")
    finally:
        made.stop(0)
    assert outcomes(metrics) == {"OK": 20, "CANCELLED": 1}
    assert codes == [grpc.StatusCode.OK] * 20 + [grpc.StatusCode.RESOURCE_EXHAUSTED]


def test_a_client_that_does_not_shake_hands_is_not_waited_for(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferry_server.transport.options._HANDSHAKE_S", 0.2)
    made = make_transport(transport, Router(ServerMetrics()), OPTIONS)
    address = made.start(ANY_PORT)
    try:
        with socket.create_connection((address.host, address.port), timeout=SOON_S) as silent:
            while silent.recv(4096):  # the server's own settings come first
                pass
    finally:
        made.stop(0)


def codes_of_a_burst(transport: str) -> set[grpc.StatusCode]:
    """How calls end of which many more come than gRPC may hand over, to a server that reads one in two milliseconds."""

    def take_a_while(call: Call, message: bytes) -> None:
        threading.Event().wait(0.002)
        call.reply(message)

    router = Router(ServerMetrics())
    router.add_unary({KEEP: take_a_while})
    made = make_transport(transport, router, replace(OPTIONS, max_streams=1000))
    try:
        with grpc.insecure_channel(str(made.start(ANY_PORT))) as channel:
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(KEEP)
            burst = [stub.future(b"x") for _ in range(400)]
            return {call.code() for call in burst}
    finally:
        made.stop(0)


def test_calls_wait_unread_for_as_long_as_their_clients_do(transport: str) -> None:
    assert int(dict(OPTIONS.arguments())["grpc.server_max_unrequested_time_in_server"]) > 1_000_000_000
    assert codes_of_a_burst(transport) == {grpc.StatusCode.OK}


def test_grpc_itself_ends_calls_that_wait_unread_for_longer_than_it_is_told(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferry_server.transport.options._KEPT_UNREAD_S", 0)
    wait_until(lambda: grpc.StatusCode.CANCELLED in codes_of_a_burst(transport), "a call that gRPC ended")


@pytest.mark.parametrize("method", [CHECK, WATCH])
def test_a_health_check_for_a_name_that_nothing_can_have_is_refused(channel: grpc.Channel, method: str) -> None:
    def ask(name: str) -> Iterator[bytes]:
        stub: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
        return stub(HealthCheckRequest(service=name).SerializeToString(), timeout=SOON_S)

    with pytest.raises(grpc.RpcError) as refused:
        next(ask("n" * 5000))
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 4096" in error.details()
    assert HealthCheckResponse.FromString(next(ask(""))).status == HealthCheckResponse.SERVING
