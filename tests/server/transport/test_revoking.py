"""Open calls are looked at again when the policy changes or a token expires, and cost nothing meanwhile."""

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from inferry_server.rpc.call import StreamCall
from inferry_server.rpc.router import Router
from inferry_server.security.access import Access
from inferry_server.security.policy import Policy, parse_policy
from inferry_server.security.standing import Standing
from inferry_server.settings.settings import TRANSPORTS
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.trace import Metadata
from inferry_server.transport.aio import AioTransport
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.revoking import Revoking
from inferry_server.transport.selection import make_transport
from testkit.policies import digest_of
from testkit.servers import ANY_PORT
from testkit.waiting import SOON_S, wait_until

ECHO, ECHOES = "/test/Echo", "/test/Echoes"  # which ask for the role admin, as all methods that nobody has named
BEARER = (("authorization", "Bearer ops"),)
OPTIONS = TransportOptions(max_message_bytes=1000, max_streams=100)


def policy(caller: str = "ops", ends: str = "1970-01-01T00:01:40Z") -> Policy:
    """Of one caller, whose token expires 100 s after the epoch."""
    text = f'[callers.{caller}]\nroles = ["admin"]\ntokens_sha256 = ["{digest_of(caller)}"]\nexpires = {ends}\n'
    return parse_policy(text.encode())


class Clock:
    """The wall clock, as a test has set it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Echoes:
    """A stream that echoes; `forgotten` counts those whose work was forgotten."""

    def __init__(self) -> None:
        self.forgotten = 0

    def __call__(self, call: StreamCall) -> "Echoes._Receiver":
        call.on_cancel(self._forget)
        return self._Receiver(call)

    def _forget(self) -> None:
        self.forgotten += 1

    class _Receiver:
        def __init__(self, call: StreamCall) -> None:
            self._call = call

        def on_message(self, message: bytes) -> None:
            self._call.send(message)

        def on_half_close(self) -> None:
            self._call.finish()

        def on_drain(self) -> None:
            self._call.finish()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    return Access(policy(), clock)


def test_what_was_decided_holds_until_the_policy_or_a_token_ends(clock: Clock, access: Access) -> None:
    standing = Standing(access)
    told = []
    for now in (0.0, 99.9, 100.0, 100.0, 500.0, 50.0, 60.0, 120.0):  # a clock may be set back
        clock.now = now
        told.append(standing.has_changed())
    assert told == [False, False, True, False, False, False, False, True]
    access.exchange(policy())  # what it says is not looked at
    assert [standing.has_changed() for _ in range(2)] == [True, False]


class Asked(Access):
    """Counts how often it decides."""

    checks = 0

    def check(self, *arguments: Any, **named: Any) -> None:
        self.checks += 1
        super().check(*arguments, **named)


class Open:
    """A stream that was let in."""

    method: str = ECHOES
    metadata: Metadata = BEARER

    def __init__(self) -> None:
        self.revoked: list[str] = []

    def certificate_names(self) -> list[str]:
        return []

    def auth_context(self) -> dict[bytes, list[bytes]]:
        return {}

    def revoke(self, status: Any) -> None:
        self.revoked.append(status.reason)


def test_nobody_is_asked_about_while_nothing_changes() -> None:
    access = Asked(policy(ends="2100-01-01T00:00:00Z"))
    revoking, streams = Revoking(Router(ServerMetrics(), access=access)), [Open(), Open()]
    assert not any(revoking.is_due() for _ in range(100))
    assert access.checks == 0
    access.exchange(policy("other"))
    assert revoking.is_due()
    assert revoking.review(streams) == streams
    assert ([stream.revoked for stream in streams], access.checks) == ([["unauthenticated"]] * 2, 2)


def test_without_a_policy_nothing_is_ever_due() -> None:
    assert not Revoking(Router(ServerMetrics())).is_due()


@pytest.fixture(params=TRANSPORTS)
def served(request: pytest.FixtureRequest, access: Access) -> Iterator[Any]:
    """A transport with its address, the stream's handler and its metrics."""
    echoes, metrics = Echoes(), ServerMetrics()
    router = Router(metrics, access=access)
    router.add_streams({ECHOES: echoes})
    router.add_unary({ECHO: lambda call, message: call.reply(message)})
    transport = make_transport(request.param, router, OPTIONS)
    address = transport.start(ANY_PORT)
    yield transport, address, echoes, metrics
    transport.stop(0.2)


def test_a_stream_ends_when_its_token_expires_and_what_it_waited_for_is_forgotten(served: Any, clock: Clock) -> None:
    transport, address, echoes, metrics = served
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    requests.put(b"x")
    with grpc.insecure_channel(str(address)) as channel:
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ECHOES)
        call: Any = stub(iter(requests.get, None), timeout=SOON_S, metadata=BEARER)
        assert next(call) == b"x"
        transport.look()
        clock.now = 100.0
        wait_until(lambda: transport.look() >= 0 and not call.is_active(), "the stream to end", look_again_s=0.05)
        requests.put(None)
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED
    assert echoes.forgotten == 1
    labels = (ECHOES, "UNAUTHENTICATED", "unauthenticated")
    wait_until(lambda: metrics.outcomes.values().get(labels) == 1, "its end to be counted")


def test_a_unary_call_whose_request_comes_only_after_its_token_has_ended_is_not_answered(
    served: Any, clock: Clock
) -> None:
    transport, address, _, metrics = served
    reads_first = isinstance(transport, AioTransport)
    revoking = transport._handler._revoking if reads_first else transport._waiting._revoking
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with grpc.insecure_channel(str(address)) as channel:
        stub: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(ECHO)
        call: Any = stub.future(iter(requests.get, None), timeout=SOON_S, metadata=BEARER)
        wait_until(lambda: metrics.received.values().get((ECHO,)) == 1, "the call to have come")
        clock.now = 100.0
        wait_until(lambda: transport.look() >= 0 and revoking.reviews == 1, "a review", look_again_s=0.05)
        if not reads_first:
            wait_until(call.done, "the call to be ended")
        requests.put(b"x")
        requests.put(None)
        call.exception(SOON_S)
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED
    labels = (ECHO, "UNAUTHENTICATED", "unauthenticated")
    wait_until(lambda: metrics.outcomes.values().get(labels) == 1, "its end to be counted")
    assert metrics.received.values()[(ECHO,)] == 1
    wait_until(lambda: reads_first or not transport._unasked, "the call to be forgotten")
