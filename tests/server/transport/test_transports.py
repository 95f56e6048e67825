"""What a transport owes beyond the protocol: limits, cancellation, deadlines, compression and TLS."""

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import psutil
import pytest
from prometheus_client import CollectorRegistry

from inferry_server.addresses import Address, AnyAddress, UnixAddress
from inferry_server.errors import ShuttingDownError, StartError
from inferry_server.rpc.call import Call, StreamCall, fail
from inferry_server.rpc.router import UNKNOWN_METHOD, Router
from inferry_server.settings.settings import TRANSPORTS
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.options import TransportOptions
from testkit.proxies import proxy
from testkit.servers import ANY_PORT
from testkit.transports import ALL_TRANSPORTS, make
from testkit.waiting import wait_until

ECHO, WAIT, RAISE, ECHOES = "/test/Echo", "/test/Wait", "/test/Raise", "/test/Echoes"
OUTCOMES = "inferry_requests_outcome_total"


class Handlers:
    """Echo at once, keep waiting, raise; and a stream that echoes."""

    def __init__(self) -> None:
        self.waiting: list[Call] = []
        self.cancelled = threading.Event()
        self.calls: list[Call] = []

    def echo(self, call: Call, message: bytes) -> None:
        self.calls.append(call)
        call.reply(message)

    def wait(self, call: Call, message: bytes) -> None:
        self.waiting.append(call)
        call.on_cancel(self.cancelled.set)

    def fail(self, call: Call, message: bytes) -> None:
        raise RuntimeError("a mistake")

    def echoes(self, call: StreamCall) -> "EchoReceiver":
        call.on_cancel(self.cancelled.set)
        return EchoReceiver(call)


class EchoReceiver:
    def __init__(self, call: StreamCall) -> None:
        self.call = call

    def on_message(self, message: bytes) -> None:
        self.call.send(message)

    def on_half_close(self) -> None:
        self.call.finish()

    def on_drain(self) -> None:
        fail(self.call, ShuttingDownError())


class Running(SimpleNamespace):
    """A transport under test, with its handlers and metrics."""

    handlers: Handlers
    registry: CollectorRegistry
    address: Address

    def outcomes(self, method: str, code: str) -> float:
        samples = (sample for metric in self.registry.collect() for sample in metric.samples)
        labels = {"method": method, "code": code}
        return sum(
            sample.value for sample in samples if sample.name == OUTCOMES and labels.items() <= sample.labels.items()
        )

    def counts(self, method: str, code: str, number: int = 1) -> None:
        """Wait until an outcome is counted: the client hears of it a little earlier."""
        wait_until(lambda: self.outcomes(method, code) == number, f"{number} x {code} of {method}")


@contextmanager
def running(name: str, *, listen: AnyAddress = ANY_PORT, **options: Any) -> Iterator[Running]:
    metrics, handlers = ServerMetrics(), Handlers()
    router = Router(metrics)
    router.add_unary({ECHO: handlers.echo, WAIT: handlers.wait, RAISE: handlers.fail})
    router.add_streams({ECHOES: handlers.echoes})
    defaults: dict[str, Any] = {"max_message_bytes": 1000, "max_streams": 100}
    transport = make(name, router, TransportOptions(**defaults | options))
    address = transport.start(listen)
    try:
        yield Running(handlers=handlers, registry=metrics.registry, address=address, transport=transport)
    finally:
        transport.stop(0.2)


@pytest.fixture(scope="module", params=ALL_TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Over every transport, and through front ends."""
    return cast("str", request.param)


@pytest.fixture
def server(transport: str) -> Iterator[Running]:
    with running(transport) as it:
        yield it


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.address)) as opened:
        yield opened


def ask(channel: grpc.Channel, method: str, message: bytes = b"x", **arguments: Any) -> bytes:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return stub(message, **{"timeout": 20.0} | arguments)


def code_of(channel: grpc.Channel, method: str, message: bytes = b"x", **arguments: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        ask(channel, method, message, **arguments)
    return raised.value.code()


def test_metadata_and_deadline_reach_the_handler(server: Running, channel: grpc.Channel) -> None:
    before = time.monotonic()
    ask(channel, ECHO, metadata=(("traceparent", "00-1-2-01"), ("x-bin", b"\0\1")), timeout=20.0)
    (call,) = server.handlers.calls
    assert ("traceparent", "00-1-2-01") in call.metadata
    assert ("x-bin", b"\0\1") in call.metadata
    assert call.deadline is not None
    assert before + 15 < call.deadline < time.monotonic() + 20.1
    assert call.method == ECHO


def test_a_call_without_deadline_has_none(server: Running, channel: grpc.Channel) -> None:
    ask(channel, ECHO, timeout=None)
    assert server.handlers.calls[0].deadline is None


def test_a_client_that_gives_up_while_it_waits_is_noticed_and_counted(server: Running, channel: grpc.Channel) -> None:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WAIT)
    future = stub.future(b"x")
    wait_until(lambda: bool(server.handlers.waiting), "the call to arrive")
    future.cancel()
    assert server.handlers.cancelled.wait(20)
    server.counts(WAIT, "CANCELLED")
    server.handlers.waiting[0].reply(b"too late")  # nobody is there, and nothing happens
    assert server.outcomes(WAIT, "OK") == 0


def test_a_deadline_that_passes_while_a_call_waits_is_noticed(server: Running, channel: grpc.Channel) -> None:
    def expires_there() -> bool:
        assert code_of(channel, WAIT, timeout=0.1) is grpc.StatusCode.DEADLINE_EXCEEDED
        return bool(server.handlers.waiting)

    wait_until(expires_there, "a call that arrives before its deadline")
    assert server.handlers.cancelled.wait(20)
    server.counts(WAIT, "CANCELLED", len(server.handlers.waiting))


def test_a_reply_that_comes_after_the_watch_began_arrives(server: Running, channel: grpc.Channel) -> None:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WAIT)
    future = stub.future(b"x", timeout=20)
    wait_until(lambda: bool(server.handlers.waiting), "the call to arrive")
    threading.Event().wait(0.1)  # longer than calls go unwatched
    server.handlers.waiting[0].reply(b"answer")
    assert future.result(20) == b"answer"
    server.counts(WAIT, "OK")
    assert server.outcomes(WAIT, "CANCELLED") == 0


def test_of_a_reply_and_a_refusal_only_the_first_counts(server: Running, channel: grpc.Channel) -> None:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WAIT)
    future = stub.future(b"x", timeout=20)
    wait_until(lambda: bool(server.handlers.waiting), "the call to arrive")
    (call,) = server.handlers.waiting
    call.reply(b"first")
    call.reply(b"second")
    fail(call, ShuttingDownError())
    assert future.result(20) == b"first"
    server.counts(WAIT, "OK")
    assert server.outcomes(WAIT, "UNAVAILABLE") == 0


def test_a_mistake_in_a_handler_stays_inside(server: Running, channel: grpc.Channel) -> None:
    assert code_of(channel, RAISE) is grpc.StatusCode.INTERNAL
    assert ask(channel, ECHO, b"alive") == b"alive"


def test_a_message_above_the_limit_is_refused(server: Running, channel: grpc.Channel) -> None:
    assert ask(channel, ECHO, b"x" * 1000) == b"x" * 1000
    assert code_of(channel, ECHO, b"x" * 1001) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ask(channel, ECHO, b"alive") == b"alive"


def test_the_completion_queue_counts_the_messages_that_grpc_refuses() -> None:
    with running("completion_queue") as server, grpc.insecure_channel(str(server.address)) as channel:
        code_of(channel, ECHO, b"x" * 1001)
        server.counts(ECHO, "RESOURCE_EXHAUSTED")
        stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ECHOES)
        with pytest.raises(grpc.RpcError):
            list(stream(iter([b"x" * 1001])))
        server.counts(ECHOES, "RESOURCE_EXHAUSTED")
        assert server.handlers.cancelled.wait(20)


def test_unknown_methods_are_counted_under_one_name(server: Running, channel: grpc.Channel) -> None:
    for method in ("/no/Such", "/nor/This"):
        assert code_of(channel, method) is grpc.StatusCode.UNIMPLEMENTED
    server.counts(UNKNOWN_METHOD, "UNIMPLEMENTED", 2)


def test_a_stream_echoes_in_order_and_ends_with_its_client(server: Running, channel: grpc.Channel) -> None:
    stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ECHOES)
    sent = [bytes([i]) * (i + 1) for i in range(200)]
    assert list(stream(iter(sent), timeout=20)) == sent
    server.counts(ECHOES, "OK")
    assert not server.handlers.cancelled.is_set()


def test_a_stream_that_is_given_up_is_cancelled(server: Running, channel: grpc.Channel) -> None:
    stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ECHOES)
    more = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"first"
        more.wait(20)

    answers = stream(requests(), timeout=20)
    assert next(answers) == b"first"
    answers.cancel()
    assert server.handlers.cancelled.wait(20)
    server.counts(ECHOES, "CANCELLED")
    more.set()


@pytest.mark.parametrize(("compression", "smaller"), [("none", False), ("gzip", True), ("deflate", True)])
def test_replies_are_compressed_where_that_was_chosen(transport: str, compression: str, *, smaller: bool) -> None:
    message = b"a" * 900
    with (
        running(transport, compression=compression) as server,
        counting_proxy(server.address) as (address, received),
        grpc.insecure_channel(address) as channel,
    ):
        assert ask(channel, ECHO, message) == message
    assert (sum(received) < len(message)) == smaller


def test_compressed_requests_are_read(server: Running) -> None:
    options = [("grpc.default_compression_algorithm", 2)]
    with grpc.insecure_channel(str(server.address), options=options) as channel:
        assert ask(channel, ECHO, b"a" * 900) == b"a" * 900


@contextmanager
def counting_proxy(address: Address) -> Iterator[tuple[str, list[int]]]:
    """Between client and server, for one connection: its address, and the sizes of what the server sent."""
    received: list[int] = []

    def count(data: bytes) -> bytes:
        received.append(len(data))
        return data

    with proxy(address, to_client=count) as proxied:
        yield proxied, received


def test_a_connection_that_is_old_enough_is_replaced_without_a_failure(transport: str) -> None:
    with (
        running(transport, max_connection_age_s=0.05) as server,
        grpc.insecure_channel(str(server.address)) as channel,
    ):
        ports: set[int] = set()

        def ask_again() -> bool:
            ask(channel, ECHO)
            connections = psutil.Process().net_connections("tcp")
            ports.update(one.laddr.port for one in connections if server.address.port in one.raddr[1:])
            return len(ports) >= 3

        wait_until(ask_again, "a third connection")


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


@pytest.mark.parametrize("transport", TRANSPORTS)  # a front end has a log of its own
def test_metadata_that_is_not_text_fills_no_log(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    grpcs_own = logging.getLogger("grpc._cython.cygrpc")
    grpcs_own.error("Invalid encoding on %s", b"\xff")
    grpcs_own.error("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


@pytest.mark.parametrize("spoiled", ["certificate", "private_key", "client_ca", "another key"])
def test_a_file_for_tls_that_is_not_one_is_named_instead_of_the_address(
    transport: str, tmp_path: Path, spoiled: str
) -> None:
    key, certificate = make_certificate(tmp_path, "server")
    files: dict[str, Any] = {"certificate": certificate, "private_key": key, "client_ca": certificate}
    if spoiled == "another key":
        files["private_key"], _ = make_certificate(tmp_path, "other")
    else:
        files[spoiled] = tmp_path / "spoiled"
        files[spoiled].write_bytes(b"-----BEGIN NOTHING-----")
    with pytest.raises(StartError, match="cannot be used for TLS") as raised, running(transport, **files):
        pass
    assert ("tls_client_ca" if spoiled == "client_ca" else "tls_certificate and tls_private_key") in str(raised.value)


def test_tls_lets_in_whom_the_authority_knows(transport: str, tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path, "server")
    client_key, client_certificate = make_certificate(tmp_path, "client")
    with running(transport, certificate=certificate, private_key=key, client_ca=client_certificate) as server:
        target = f"localhost:{server.address.port}"
        known = grpc.ssl_channel_credentials(
            certificate.read_bytes(), client_key.read_bytes(), client_certificate.read_bytes()
        )
        with grpc.secure_channel(target, known) as channel:
            assert ask(channel, ECHO, b"secret") == b"secret"
        for stranger in (grpc.ssl_channel_credentials(certificate.read_bytes()), None):
            opened = grpc.insecure_channel(target) if stranger is None else grpc.secure_channel(target, stranger)
            with opened as channel:
                assert code_of(channel, ECHO) is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_that_cannot_be_read_stops_the_start(transport: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with (
        pytest.raises(StartError, match=r"tls_private_key.*missing\.pem cannot be read"),
        running(transport, certificate=missing, private_key=missing),
    ):
        pass


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_unix_socket_is_served_and_never_taken_from_another_server(transport: str, tmp_path: Path) -> None:
    address = UnixAddress("unix", str(tmp_path / "inferry.sock"))
    with running(transport, listen=address) as first:
        assert str(first.address) == str(address)
        with grpc.insecure_channel(str(address)) as channel:
            assert ask(channel, ECHO, b"here") == b"here"
            with (
                pytest.raises(StartError, match=r"unix:.*inferry.sock cannot be bound"),
                running(transport, listen=address),
            ):
                pass
            assert ask(channel, ECHO, b"still") == b"still"
    with running(transport, listen=address), grpc.insecure_channel(str(address)) as channel:
        assert ask(channel, ECHO, b"again") == b"again"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_socket_that_a_server_left_behind_is_used_again(transport: str, tmp_path: Path) -> None:
    path = tmp_path / "inferry.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    address = UnixAddress("unix", str(path))
    with running(transport, listen=address), grpc.insecure_channel(str(address)) as channel:
        assert ask(channel, ECHO, b"alive") == b"alive"
