import logging

import grpc
import pytest

from inferry_server.errors import ModelNotFoundError
from inferry_server.rpc.call import Call, StreamCall
from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from testkit.calls import FakeCall

UNARY, STREAM = "/test/Unary", "/test/Stream"


def router_that_raises(error: Exception) -> Router:
    class Receiver:
        def on_message(self, message: bytes) -> None:
            raise error

        def on_half_close(self) -> None:
            raise error

        def on_drain(self) -> None:
            raise error

    def handle(call: Call, message: bytes) -> None:
        raise error

    def open_stream(call: StreamCall) -> Receiver:
        return Receiver()

    router = Router(ServerMetrics())
    router.add_unary({UNARY: handle})
    router.add_streams({STREAM: open_stream})
    return router


def statuses_after(error: Exception) -> list[tuple[grpc.StatusCode, str]]:
    """How a unary call, a stream's message and a stream's end fare when the handler raises."""
    router = router_that_raises(error)
    calls = [FakeCall(UNARY), FakeCall(STREAM), FakeCall(STREAM)]
    router.handle(calls[0], b"")
    router.open(calls[1]).on_message(b"")
    router.open(calls[2]).on_half_close()
    return [(call.statuses[0].code, call.statuses[0].message) for call in calls]


def test_a_domain_error_becomes_its_status() -> None:
    for code, message in statuses_after(ModelNotFoundError("m")):
        assert code is grpc.StatusCode.NOT_FOUND
        assert message == "model 'm' is not in the repository"


def test_an_unexpected_error_is_logged_with_its_traceback_and_leaves_as_a_plain_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        for code, message in statuses_after(KeyError("secret")):
            assert code is grpc.StatusCode.INTERNAL
            assert "secret" not in message
    assert caplog.text.count("KeyError: 'secret'") == 3
