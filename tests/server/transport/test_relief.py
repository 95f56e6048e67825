"""A thread that reads calls and computes far too long is relieved: calls are read all the same."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from inferry_server.addresses import Address
from inferry_server.executing.inline import InlineWork
from inferry_server.rpc.call import Call
from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport import reading_thread
from inferry_server.transport.completion_queue import CompletionQueueTransport
from inferry_server.transport.options import TransportOptions
from testkit.waiting import SOON_S, wait_until

ECHO, COMPUTE = "/test/Echo", "/test/Compute"


class Computing:
    """A transport whose calls of COMPUTE are answered by work that takes as long as the test likes."""

    def __init__(self) -> None:
        self.inline = InlineWork()
        self.go = threading.Event()
        self.computed_by: list[threading.Thread] = []
        self.relieved: list[bool] = []
        router = Router(ServerMetrics())
        router.add_unary({ECHO: lambda call, message: call.reply(message), COMPUTE: self.compute})
        self.transport = CompletionQueueTransport(
            router,
            TransportOptions(max_message_bytes=1000, max_streams=1000),
            inline=self.inline,
            relieved=lambda: self.relieved.append(True),
        )

    def compute(self, call: Call, message: bytes) -> None:
        def work() -> None:
            self.computed_by.append(threading.current_thread())
            assert self.go.wait(SOON_S)
            call.reply(message)

        assert self.inline.thread == threading.get_ident()
        self.inline.pending.append(work)


class Client:
    """Calls both methods."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def begin(self, method: str, message: bytes) -> Any:
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        return stub.future(message, timeout=SOON_S)

    def call(self, method: str, message: bytes) -> Any:
        return self.begin(method, message).result()


@contextmanager
def computing() -> Iterator[tuple[Computing, Client]]:
    it = Computing()
    address = it.transport.start(Address("127.0.0.1", 0))
    try:
        with grpc.insecure_channel(str(address)) as channel:
            yield it, Client(channel)
    finally:
        it.go.set()
        it.transport.stop(SOON_S)


def test_calls_are_read_while_the_thread_that_read_them_computes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_thread, "RELIEVED_AFTER_S", 0.0)
    with computing() as (it, client):
        slow = client.begin(COMPUTE, b"slow")
        wait_until(lambda: bool(it.computed_by), "it to compute")
        it.transport.look()
        assert client.call(ECHO, b"heard") == b"heard"
        second = client.begin(COMPUTE, b"second")
        wait_until(lambda: len(it.computed_by) == 2, "the second to be computed")
        it.transport.look()
        assert client.call(ECHO, b"heard again") == b"heard again"
        it.go.set()
        assert (slow.result(), second.result()) == (b"slow", b"second")
        for thread in it.computed_by:
            thread.join(SOON_S)
            assert not thread.is_alive()
        assert client.call(ECHO, b"and after") == b"and after"
        assert client.call(COMPUTE, b"third") == b"third"  # the newest thread computes inline
        assert it.relieved == [True, True]
    assert not any(thread.is_alive() for thread in it.computed_by)


def test_a_thread_that_does_not_compute_is_not_relieved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_thread, "RELIEVED_AFTER_S", 0.0)
    with computing() as (it, client):
        it.go.set()
        for _ in range(20):
            it.transport.look()
            assert client.call(COMPUTE, b"x") == b"x"
        assert len(set(it.computed_by)) == 1 + len(it.relieved)


def test_a_thread_that_stands_still_for_a_moment_is_left_alone() -> None:
    with computing() as (it, client):
        answer = client.begin(COMPUTE, b"slow")
        wait_until(lambda: bool(it.computed_by), "it to compute")
        it.transport.look()
        it.transport.look()
        it.go.set()
        assert answer.result() == b"slow"
        assert it.relieved == []
