"""How a server stops, whichever transport it has: the steps by a clock that the test moves, and grpc.aio's part."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from inferry_server.rpc.router import Router
from inferry_server.rpc.statuses import OK
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.aio_draining import AioDraining
from inferry_server.transport.aio_handler import AioHandler
from inferry_server.transport.drain import drain
from inferry_server.transport.options import TransportOptions
from testkit.clock import ManualClock

GRACE_S = 10.0
QUIET_S = 0.05  # and a look more, from the last request to the end of the connections


@dataclass
class Played:
    """A transport in played time.

    Attributes:
        owed_until: it has no reply to give from then on.
        arrivals: of requests.
        ends_at: nothing is under way from then on.
        steps: what it was told, and when.
    """

    owed_until: float = 0.0
    arrivals: tuple[float, ...] = ()
    ends_at: float = 1e9
    now: float = 0.0
    steps: list[tuple[str, float]] = field(default_factory=list)

    @property
    def last_arrival(self) -> float:
        return max((at for at in self.arrivals if at <= self.now), default=-1.0)

    def hold(self) -> None:
        self.steps.append(("hold", self.now))

    def owes_replies(self) -> bool:
        return self.now < self.owed_until

    def has_ended(self) -> bool:
        return self.now >= self.ends_at

    def close(self) -> None:
        self.steps.append(("close", self.now))

    def turn_away(self) -> None:
        self.steps.append(("turn away", self.now))

    def drained(self, grace_s: float = GRACE_S) -> list[tuple[str, float]]:
        """The steps, and when the rest is cancelled."""
        for pause_s in drain(self, grace_s, lambda: self.now):
            assert pause_s >= 0
            self.now = min(self.now + pause_s, max(self.now, self.ends_at))
        return [*self.steps, ("cancel", self.now)]


def closed_at(steps: list[tuple[str, float]]) -> float:
    assert [step for step, _ in steps] == ["hold", "close", "turn away", "cancel"]
    return dict(steps)["close"]


def test_an_idle_server_closes_after_a_moment_and_cancels_after_the_grace() -> None:
    steps = Played().drained()
    closed = closed_at(steps)
    assert 0 < closed <= QUIET_S
    assert [at - closed for _, at in steps[1:]] == pytest.approx([0.0, 0.3, GRACE_S])


@pytest.mark.parametrize(("owed_s", "grace_s", "expected"), [(0.4, 10.0, 0.4), (5.0, 10.0, 1.0), (5.0, 0.2, 0.2)])
def test_replies_that_are_owed_are_waited_for_but_not_for_long(owed_s: float, grace_s: float, expected: float) -> None:
    steps = Played(owed_until=owed_s).drained(grace_s)
    assert expected <= closed_at(steps) <= expected + QUIET_S
    assert dict(steps)["cancel"] - closed_at(steps) == pytest.approx(grace_s)


def test_connections_are_closed_when_no_request_has_come_for_a_moment() -> None:
    assert 0.1 < closed_at(Played(arrivals=(0.02, 0.04, 0.06, 0.08, 0.1)).drained()) <= 0.1 + QUIET_S


def test_callers_that_never_pause_do_not_hold_up_the_end() -> None:
    steps = Played(arrivals=tuple(i / 100 for i in range(1000))).drained()
    assert 0.3 <= closed_at(steps) <= 0.3 + QUIET_S


def test_a_grace_shorter_than_stragglers_have_is_kept() -> None:
    steps = Played().drained(0.1)
    closed = closed_at(steps)
    assert [at - closed for _, at in steps[1:]] == pytest.approx([0.0, 0.1, 0.1])


@pytest.mark.parametrize("owed_until", [0.0, 1e9])
def test_nobody_waits_for_a_transport_that_has_ended(owed_until: float) -> None:
    steps = Played(owed_until=owed_until, ends_at=0.0).drained()
    assert steps == [("hold", 0.0), ("close", 0.0), ("turn away", 0.0), ("cancel", 0.0)]


def test_grpc_aio_stops_when_every_reply_has_gone_that_is_owed() -> None:
    router = Router(ServerMetrics())
    router.add_unary({"/a/B": lambda *_: None})
    accounts = [router.received("/a/B", ()) for _ in range(3)]
    in_flight: list[int] = []

    class Server:
        async def stop(self, grace_s: float) -> None:
            assert grace_s == GRACE_S
            in_flight.append(router.unary_in_flight())

    async def stop() -> None:
        handler = AioHandler(router, asyncio.get_running_loop(), TransportOptions(max_message_bytes=1, max_streams=1))
        server: Any = Server()
        draining = AioDraining(server, handler, GRACE_S)
        clock = ManualClock()
        for pause_s in drain(draining, GRACE_S, clock):
            clock.now += pause_s
            if accounts:
                accounts.pop().ended(OK)
            await asyncio.sleep(0)
        await asyncio.wait_for(draining.ended, 30)

    asyncio.run(stop())
    assert in_flight == [0]
