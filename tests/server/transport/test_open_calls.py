"""Streams whose clients neither send nor read are ended, and the calls that wait for longest where too many wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from hypothesis import given
from hypothesis import strategies as st

from bench.attacks.frames import DATA, Peer, frame, headers, message
from inferry_server.rpc.call import StreamCall
from inferry_server.rpc.router import Router
from inferry_server.services.health import HealthService
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport import half_sent
from inferry_server.transport.open_calls import idle, longest_waiting, unread
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import Transport, make_transport
from testkit.servers import ANY_PORT
from testkit.transports import moved_clock, on_their_way
from testkit.waiting import wait_until

ECHO, KEEP, WATCH = "/test/Echo", "/test/Keep", "/grpc.health.v1.Health/Watch"
IDLE_S, UNREAD_S = 300.0, 100.0
OPTIONS = TransportOptions(
    max_message_bytes=1 << 20, max_streams=100, stream_idle_timeout_s=IDLE_S, reply_read_timeout_s=UNREAD_S,
    request_read_timeout_s=1e6, max_open_calls=16,
)  # fmt: skip


@dataclass(eq=False)
class Waiting:
    """A stream as the decisions see it."""

    active_at: float
    awaits_request: bool = False
    awaits_reader: bool = False


def test_a_stream_is_idle_only_while_its_client_may_send() -> None:
    silent, active, owed = Waiting(1.0, awaits_request=True), Waiting(5.0, awaits_request=True), Waiting(1.0)
    assert idle([silent, active, owed], 2.0) == [silent]


def test_a_stream_is_unread_only_while_something_is_on_its_way() -> None:
    stuck, moving, silent = Waiting(1.0, awaits_reader=True), Waiting(5.0, awaits_reader=True), Waiting(1.0)
    assert unread([stuck, moving, silent], 2.0) == [stuck]


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)), st.integers(0, 20))
def test_of_too_many_calls_those_end_that_wait_for_longest(unary: list[float], streams: list[float], most: int) -> None:
    unasked = {f"call {number}": since for number, since in enumerate(unary)}
    opened = [Waiting(at) for at in streams]
    ended = longest_waiting(unasked, opened, most)
    since = [unasked[one] if isinstance(one, str) else one.active_at for one in ended]
    assert len(ended) == max(0, len(unary) + len(streams) - most)
    assert sorted(since) == sorted(unary + streams)[: len(ended)]


@dataclass
class Running:
    """A transport whose clock the test moves."""

    transport: Transport
    port: int
    metrics: ServerMetrics
    advance: Callable[[float], None]
    opened: list[StreamCall] = field(default_factory=list)

    def all_read(self, but: int = 0) -> None:
        """Wait until clients have read every reply, but for some."""
        wait_until(lambda: on_their_way(self.transport) == but, "the replies to be read")

    def ended(self, reason: str) -> float:
        """Calls that ended for a reason, once the transport has looked."""
        self.advance(2.0)
        self.transport.look()
        return self.counted(reason)

    def counted(self, reason: str) -> float:
        """Calls that ended for a reason."""
        counted = self.metrics.outcomes.values()
        return sum(count for (_, _, why), count in counted.items() if why == reason)


class Echoes:
    """Replies to every message with itself, or keeps it."""

    def __init__(self, call: StreamCall, *, keeps: bool) -> None:
        self._call, self._keeps = call, keeps

    def on_message(self, message: bytes) -> None:
        if not self._keeps:
            self._call.send(message)

    def on_half_close(self) -> None:
        self._call.finish()

    def on_drain(self) -> None:
        self._call.finish()


def make_running(transport: str, options: TransportOptions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    metrics, opened = ServerMetrics(), list[StreamCall]()
    router = Router(metrics)
    health = HealthService(lambda: True, lambda _: None)

    def open_stream(call: StreamCall, *, keeps: bool) -> Echoes:
        opened.append(call)
        return Echoes(call, keeps=keeps)

    router.add_unary({KEEP: lambda _call, _message: None})
    router.add_streams(
        {
            ECHO: lambda call: open_stream(call, keeps=False),
            f"{ECHO}Never": lambda call: open_stream(call, keeps=True),
            **health.stream_handlers(),
        }
    )
    made = make_transport(transport, router, options)
    with moved_clock(made, monkeypatch) as advance:
        address = made.start(ANY_PORT)
        yield Running(made, address.port, metrics, advance, opened)
        made.stop(0)


@pytest.fixture
def server(transport: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    yield from make_running(transport, OPTIONS, monkeypatch)


class Stream:
    """A stream of a client that sends what the test says."""

    def __init__(self, channel: grpc.Channel, path: str) -> None:
        self._more = threading.Condition()
        self._waiting: list[bytes] = []
        self._is_over = False
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        self.call: Any = stub(self._messages())

    def _messages(self) -> Iterator[bytes]:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._waiting or self._is_over)
                if not self._waiting:
                    return
                following = self._waiting.pop(0)
            yield following

    def send(self, message: bytes) -> None:
        with self._more:
            self._waiting.append(message)
            self._more.notify()

    def close(self) -> None:
        with self._more:
            self._is_over = True
            self._more.notify()
        self.call.cancel()


def test_a_stream_whose_client_says_nothing_is_ended_and_others_are_not(server: Running) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        silent, talking, owed = (Stream(channel, path) for path in (ECHO, ECHO, f"{ECHO}Never"))
        for stream in (silent, talking, owed):
            stream.send(b"first")
        assert (next(silent.call), next(talking.call)) == (b"first", b"first")
        watching: Any = channel.unary_stream(WATCH)(HealthCheckRequest().SerializeToString())
        next(watching)
        wait_until(lambda: len(server.opened) == 3, "the streams")
        server.all_read()
        server.advance(IDLE_S - 50)
        server.transport.look()
        talking.send(b"second")
        assert next(talking.call) == b"second"
        assert server.ended("stream_idle") == 0
        server.all_read()
        server.advance(50)
        server.transport.look()
        wait_until(lambda: server.counted("stream_idle") == 1, "the silent stream to be ended")
        with pytest.raises(grpc.RpcError) as ended:
            next(silent.call)
        error: Any = ended.value
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "setting stream_idle_timeout_s" in error.details()
        talking.send(b"third")
        assert next(talking.call) == b"third"
        server.all_read()
        assert server.ended("stream_idle") == 1
        assert watching.is_active()
        for stream in (silent, talking, owed):
            stream.close()
        watching.cancel()


def test_where_too_many_calls_wait_for_their_clients_those_that_wait_for_longest_end(server: Running) -> None:
    first, second = Peer(server.port), Peer(server.port)
    for stream in range(1, 41, 2):
        first.send(headers(KEEP, stream))
    wait_until(lambda: server.metrics.received.labels(KEEP).value == 20, "the calls")
    server.advance(1.0)
    for stream in range(1, 21, 2):
        second.send(headers(ECHO, stream))
    wait_until(lambda: len(server.opened) == 10, "the streams")

    def ended() -> bool:
        for peer in (first, second):
            peer.look(0.01)
        return server.counted("too_many_open_calls") >= 14 and first.seen["answered"] >= 14

    server.ended("too_many_open_calls")
    wait_until(ended, "those that are too many to be ended")
    assert server.ended("too_many_open_calls") == 14
    assert second.seen["answered"] == 0
    for peer in (first, second):
        peer.close()


def test_where_memory_is_short_half_of_the_requests_that_come_slowly_give_way(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [1 << 40]
    monkeypatch.setattr(half_sent.is_memory_short, "__defaults__", (lambda: left[0],))
    peer = Peer(server.port)

    def begin(*streams: int) -> None:
        for stream in streams:
            peer.send(headers(KEEP, stream) + frame(DATA, 0, stream, message(b"half", announced=9)))
        wait_until(lambda: server.metrics.received.labels(KEEP).value == (max(streams) + 1) // 2, "the calls")

    begin(1, 3, 5, 7, 9, 11)
    assert server.ended("memory_short") == 0
    server.advance(2.0)
    begin(13, 15)
    left[0] = 4 * OPTIONS.max_message_bytes - 1
    server.transport.look()
    left[0] += 1
    wait_until(lambda: server.counted("memory_short") == 3, "the oldest half of the slow ones to give way")
    assert server.ended("memory_short") == 3
    peer.close()


def test_a_stream_whose_client_does_not_read_is_given_up(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = "closed" if transport == "aio" else "reset"  # the connection of both streams, or each of them
    with contextmanager(make_running)(transport, OPTIONS, monkeypatch) as server:
        deaf, reading = (Peer(server.port, window=window) for window in (0, 1 << 16))
        for peer, closes in ((deaf, False), (deaf, True), (reading, False)):
            number = 3 if closes else 1
            peer.send(headers(ECHO, number) + frame(DATA, int(closes), number, message(b"hello")))
        wait_until(lambda: len(server.opened) == 3, "the streams")

        def unread() -> int:
            return int(sum(server.metrics.replies_unread.values().values()))

        def given_up() -> int:
            server.advance(2.0)
            server.transport.look()
            return unread()

        assert given_up() == 0
        server.all_read(but=2)
        server.advance(UNREAD_S)
        server.transport.look()
        wait_until(lambda: unread() == 2, "the replies that are not read to be given up")

        def ended() -> bool:
            server.transport.look()
            for peer in (deaf, reading):
                peer.look(0.1)
            return deaf.seen[ends] == (1 if transport == "aio" else 2)

        wait_until(ended, "them to end")
        assert server.counted("stream_idle") == 0
        reading.send_data(1, message(b"again"))
        reading.look(0.2)
        assert reading.seen["reset"] == reading.seen["closed"] == 0
        assert given_up() == 2
        for peer in (deaf, reading):
            peer.close()
