"""The account of a call on every transport: one outcome, whoever ends it first."""

from collections.abc import Iterator
from typing import cast

import grpc
import pytest

from inferry_server.rpc.call import Call
from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.options import TransportOptions
from testkit.gated_server import count_outcomes
from testkit.servers import ANY_PORT
from testkit.transports import ALL_TRANSPORTS, make
from testkit.waiting import SOON_S, wait_until

METHOD = "/test/Method"
OPTIONS = TransportOptions(max_message_bytes=1000, max_streams=10)


class Handler:
    """Keeps its calls; answers the message `at once` twice, and others when they are cancelled."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, call: Call, message: bytes) -> None:
        self.calls.append(call)
        if message == b"at once":
            call.reply(b"first")
            call.reply(b"second")
        call.on_cancel(lambda: call.reply(b"too late"))


@pytest.fixture(scope="module", params=ALL_TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Over every transport, and through front ends."""
    return cast("str", request.param)


@pytest.fixture
def metrics() -> ServerMetrics:
    return ServerMetrics()


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def channel(transport: str, metrics: ServerMetrics, handler: Handler) -> Iterator[grpc.Channel]:
    router = Router(metrics)
    router.add_unary({METHOD: handler})
    running = make(transport, router, OPTIONS)
    with grpc.insecure_channel(str(running.start(ANY_PORT))) as opened:
        yield opened
    running.stop(0)


def outcomes(metrics: ServerMetrics) -> dict[str, int]:
    return dict(count_outcomes(metrics, METHOD))


def test_the_first_reply_ends_a_call_and_is_its_only_outcome(channel: grpc.Channel, metrics: ServerMetrics) -> None:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    assert stub(b"at once", timeout=SOON_S) == b"first"
    assert outcomes(metrics) == {"OK": 1}


@pytest.fixture
def cancelled(channel: grpc.Channel, metrics: ServerMetrics, handler: Handler) -> Call:
    """The server's side of a call whose client has gone away, and which is counted."""
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    asked = stub.future(b"")
    wait_until(lambda: bool(handler.calls), "the call to arrive")
    asked.cancel()
    wait_until(lambda: bool(outcomes(metrics)), "an outcome")
    return handler.calls[0]


def test_a_reply_after_the_cancellation_changes_nothing(cancelled: Call, metrics: ServerMetrics) -> None:
    cancelled.reply(b"still too late")
    assert outcomes(metrics) == {"CANCELLED": 1}


def test_who_asks_to_hear_of_a_cancellation_after_it_is_told_at_once(cancelled: Call) -> None:
    told: list[str] = []
    cancelled.on_cancel(lambda: told.append("cancelled"))
    assert told == ["cancelled"]
