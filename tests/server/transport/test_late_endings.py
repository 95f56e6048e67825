"""How calls end that bring no request, a damaged one, or meet a server that goes away, over every transport."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from inferry_server.addresses import Address
from inferry_server.rpc.call import Call, Outcome, StreamCall, StreamReceiver
from inferry_server.rpc.router import Router
from inferry_server.services.inference import STREAM_FORMAT
from inferry_server.services.streams import OrderedStream
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.trace import NoTracer, RequestTrace
from inferry_server.transport import drain
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import Transport, make_transport
from testkit.proxies import proxy
from testkit.servers import ANY_PORT
from testkit.waiting import SOON_S, wait_until

ECHO, KEEP, ORDERED, BROKEN = "/test/Echo", "/test/Keep", "/test/Ordered", "/test/Broken"
PROBE = "/test/Probe"  # asks whether the server still takes calls
OPTIONS = TransportOptions(max_message_bytes=1000, max_streams=10)
GRACE_S = 600.0  # a stop that waits for it fails its test
GZIP = [("grpc.default_compression_algorithm", 2)]


class ToldStream:
    """An `OrderedStream` that notes what the transport tells it."""

    def __init__(self, stream: OrderedStream, told: list[str]) -> None:
        self.stream = stream
        self.told = told

    def on_message(self, message: bytes) -> None:
        self.told.append("message")
        self.stream.on_message(message)

    def on_half_close(self) -> None:
        self.told.append("half-close")
        self.stream.on_half_close()

    def on_drain(self) -> None:
        self.told.append("drain")
        self.stream.on_drain()


@dataclass
class Running:
    """A transport, and what its handlers have: calls that wait, and what streams were told."""

    transport: Transport
    metrics: ServerMetrics
    address: Address = ANY_PORT
    kept: list[Call] = field(default_factory=list)
    answers: list[Outcome] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    stopping: threading.Thread | None = None

    def keep(self, call: Call, message: bytes) -> None:
        self.kept.append(call)

    def ordered(self, call: StreamCall) -> StreamReceiver:
        def submit(
            message: bytes, outcome: Outcome, *, call_deadline: float | None, trace: RequestTrace | None
        ) -> Callable[[], object]:
            self.answers.append(outcome)
            return lambda: None

        return ToldStream(OrderedStream(call, STREAM_FORMAT, submit, NoTracer()), self.told)

    def begin_to_stop(self) -> None:
        """Stop on a thread, and come back when no new call is taken."""
        self.stopping = threading.Thread(target=self.transport.stop, args=(GRACE_S,))
        self.stopping.start()

        def refuses() -> bool:
            with grpc.insecure_channel(str(self.address)) as channel:
                stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PROBE)
                return stub.future(b"").exception(SOON_S) is not None

        wait_until(refuses, "the server to take no more calls")

    def wait_until_stopped(self) -> None:
        assert self.stopping is not None
        self.stopping.join(SOON_S)
        assert not self.stopping.is_alive()

    def received(self) -> int:
        """Calls whose account was opened."""
        return int(
            sum(s.value for f in self.metrics.received.collect() for s in f.samples if s.name.endswith("_total"))
        )

    def outcomes(self, method: str) -> list[tuple[str, str]]:
        """Code and reason of each call of a method that has ended."""
        samples = (sample for family in self.metrics.outcomes.collect() for sample in family.samples)
        return [
            (sample.labels["code"], sample.labels["reason"])
            for sample in samples
            if sample.name.endswith("_total") and sample.labels["method"] == method
            for _ in range(int(sample.value))
        ]

    def counts(self, method: str, *expected: tuple[str, str]) -> None:
        """The outcomes of a method become these: clients may hear a little earlier."""
        wait_until(lambda: len(self.outcomes(method)) >= len(expected), f"outcomes of {method}")
        assert sorted(self.outcomes(method)) == sorted(expected)


@contextmanager
def running(name: str) -> Iterator[Running]:
    metrics = ServerMetrics()
    router = Router(metrics)
    it = Running(make_transport(name, router, OPTIONS), metrics)

    def broken(call: StreamCall) -> StreamReceiver:
        raise RuntimeError("a mistake")

    def echo(call: Call, message: bytes) -> None:
        call.reply(message)

    router.add_unary({ECHO: echo, PROBE: echo, KEEP: it.keep})
    router.add_streams({ORDERED: it.ordered, BROKEN: broken})
    it.address = it.transport.start(ANY_PORT)
    try:
        yield it
    finally:
        if it.stopping is None:
            it.transport.stop(0)


@pytest.fixture
def server(transport: str) -> Iterator[Running]:
    with running(transport) as it:
        yield it


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.address)) as opened:
        yield opened


class OpenCall:
    """A call that has sent its headers; `send` sends a message, `half_close` says that no more will come."""

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        self._messages: queue.Queue[bytes | None] = queue.Queue()
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        self.answers: Any = stub(iter(self._messages.get, None), timeout=SOON_S)

    def send(self, message: bytes) -> None:
        self._messages.put(message)

    def half_close(self) -> None:
        self._messages.put(None)

    def end(self) -> tuple[str, str]:
        """The status and message at its end."""
        try:
            for _ in self.answers:
                pass
        except grpc.RpcError:
            pass
        self.half_close()  # so that gRPC's thread, which waits for messages, goes
        return self.answers.code().name, self.answers.details()


def open_call(server: Running, channel: grpc.Channel, method: str) -> OpenCall:
    """A call that the server knows of."""
    before = server.received()
    call = OpenCall(channel, method)
    wait_until(lambda: server.received() > before, "the call to arrive")
    return call


def test_a_call_that_has_asked_nothing_does_not_hold_up_a_server_that_goes_away(
    server: Running, channel: grpc.Channel
) -> None:
    call = open_call(server, channel, ECHO)
    server.begin_to_stop()
    code, message = call.end()
    assert (code, "shutting down" in message) == ("UNAVAILABLE", True), message
    server.wait_until_stopped()
    assert server.outcomes(ECHO) == [("UNAVAILABLE", "shutting_down")]


def test_a_request_on_a_call_that_was_opened_before_the_server_goes_away_gets_its_reply(
    server: Running, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "STRAGGLER_S", GRACE_S)
    call = open_call(server, channel, ECHO)
    server.begin_to_stop()
    call.send(b"a moment later")
    assert next(call.answers) == b"a moment later"
    assert call.end()[0] == "OK"
    server.wait_until_stopped()
    assert server.outcomes(ECHO) == [("OK", "")]


def test_a_call_that_has_asked_gets_its_reply_although_others_are_sent_away(
    server: Running, channel: grpc.Channel
) -> None:
    asked, silent = open_call(server, channel, KEEP), open_call(server, channel, KEEP)
    asked.send(b"request")
    wait_until(lambda: bool(server.kept), "the request to arrive")
    server.begin_to_stop()
    assert silent.end()[0] == "UNAVAILABLE"
    server.kept[0].reply(b"answer")
    assert next(asked.answers) == b"answer"
    asked.end()
    server.wait_until_stopped()
    server.counts(KEEP, ("OK", ""), ("UNAVAILABLE", "shutting_down"))


def test_a_call_without_a_request_is_told_that_it_takes_one(server: Running, channel: grpc.Channel) -> None:
    call = open_call(server, channel, ECHO)
    call.half_close()
    code, message = call.end()
    assert (code, "exactly one request message" in message) == ("UNIMPLEMENTED", True), message
    server.counts(ECHO, ("UNIMPLEMENTED", "no_message"))


def test_a_client_that_goes_away_before_it_asks_is_counted_as_cancelled(server: Running, channel: grpc.Channel) -> None:
    open_call(server, channel, ECHO).answers.cancel()
    server.counts(ECHO, ("CANCELLED", ""))


@pytest.mark.parametrize("method", [ECHO, ORDERED])
def test_a_request_that_cannot_be_decompressed_is_counted_once_and_not_as_too_large(
    server: Running, transport: str, method: str
) -> None:
    def damage(data: bytes) -> bytes:
        return data.replace(b"\x1f\x8b\x08", bytes(3))  # where gzip begins

    with proxy(server.address, to_server=damage) as address, grpc.insecure_channel(address, options=GZIP) as channel:
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        call: Any = stub(iter([b"a" * 900]), timeout=SOON_S)
        assert call.code() is grpc.StatusCode.INTERNAL
        assert "ecompress" in call.details()
    # What gRPC tells the client it does not tell the server: with the completion queue it says that it refused.
    refused = ("RESOURCE_EXHAUSTED", "message_refused") if transport == "completion_queue" else ("CANCELLED", "")
    server.counts(method, refused)


def test_a_stream_that_cannot_be_opened_ends_with_an_internal_error(server: Running, channel: grpc.Channel) -> None:
    code, message = open_call(server, channel, BROKEN).end()
    assert (code, "a mistake" in message) == ("INTERNAL", False), message
    server.counts(BROKEN, ("INTERNAL", "unexpected_error"))


def test_a_stream_whose_requests_all_have_their_replies_ends_well_although_the_server_goes_away(
    server: Running, channel: grpc.Channel
) -> None:
    call = open_call(server, channel, ORDERED)
    call.send(b"request")
    wait_until(lambda: bool(server.answers), "the request to arrive")
    server.begin_to_stop()
    wait_until(lambda: "drain" in server.told, "the stream to be told")
    call.half_close()
    wait_until(lambda: "half-close" in server.told, "the half-close to arrive")
    server.answers[0].reply(b"")
    assert call.end()[0] == "OK"
    server.wait_until_stopped()
    assert server.outcomes(ORDERED) == [("OK", "")]


def test_a_stream_with_a_request_that_came_too_late_ends_unavailable(server: Running, channel: grpc.Channel) -> None:
    call = open_call(server, channel, ORDERED)
    call.send(b"request")
    wait_until(lambda: bool(server.answers), "the request to arrive")
    server.begin_to_stop()
    wait_until(lambda: "drain" in server.told, "the stream to be told")
    call.send(b"too late")
    call.half_close()
    server.answers[0].reply(b"")
    assert call.end()[0] == "UNAVAILABLE"
    server.wait_until_stopped()
    assert server.told == ["message", "drain"]
    assert server.outcomes(ORDERED) == [("UNAVAILABLE", "shutting_down")]
