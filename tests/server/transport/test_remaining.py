"""Deadlines while the wall clock jumps: at every moment between two looks at it, ahead and back."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport import queue_calls, remaining
from inferry_server.transport.aio_calls import AioCall
from inferry_server.transport.queue_calls import QueueCall

METHOD = "/test/Unary"
LEFT_S = 5.0
STEP_S = 1e-6  # that pass with every look at a clock
CLOSE_S = 1e-3


class Clocks:
    """Both clocks of a machine, and the deadline of a call; the wall clock jumps as it is looked at for the nth time.

    Attributes:
        deadline_at: of the call, on the monotonic clock.
    """

    def __init__(self, jumps: dict[int, float]) -> None:
        self._jumps, self._looks, self._offset, self._now = jumps, itertools.count(), 1.7e9, 1000.0
        self.deadline_at = self._now + LEFT_S

    def monotonic(self) -> float:
        self._now += STEP_S
        return self._now

    def time(self) -> float:
        self._offset += self._jumps.get(next(self._looks), 0.0)
        return self.monotonic() + self._offset

    @property
    def deadline(self) -> float:
        """As gRPC's core tells it: the time that is left, from now on the wall clock."""
        return self.time() + (self.deadline_at - self.monotonic())

    def time_remaining(self) -> float:
        """As grpcio's asyncio server tells it."""
        return max(self.deadline - self.time(), 0.0)

    def peer(self) -> str:
        return "somebody"


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(ServerMetrics())


def queue_deadline(clocks: Clocks, router: Router) -> float | None:
    event: Any = SimpleNamespace(call=object(), invocation_metadata=(), call_details=clocks)
    with pytest.MonkeyPatch.context() as patched:
        for module in (queue_calls, remaining):
            patched.setattr(module, "time", clocks)
        return QueueCall(event, METHOD, router.received(METHOD, ()), SimpleNamespace()).deadline


def aio_deadline(clocks: Clocks, router: Router) -> float | None:
    loop: Any = SimpleNamespace(create_future=lambda: None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("inferry_server.transport.aio_calls.time", clocks)
        return AioCall(METHOD, (), clocks, loop, router.received(METHOD, ())).deadline


@pytest.mark.parametrize("deadline_of", [queue_deadline, aio_deadline])
@given(look=st.integers(0, 6), seconds=st.sampled_from((3600.0, -86_400.0, 30.0, 1e7, -2.0, 0.5)))
def test_a_deadline_is_right_whenever_the_wall_clock_jumps(
    deadline_of: Any, router: Router, look: int, seconds: float
) -> None:
    clocks = Clocks({look: seconds})
    assert deadline_of(clocks, router) == pytest.approx(clocks.deadline_at, abs=CLOSE_S)


@pytest.mark.parametrize("deadline_of", [queue_deadline, aio_deadline])
def test_a_clock_that_never_stands_still_holds_nobody_up(deadline_of: Any, router: Router) -> None:
    assert deadline_of(Clocks(dict.fromkeys(range(10_000), 30.0)), router) is not None


@pytest.mark.parametrize("deadline_of", [queue_deadline, aio_deadline])
def test_a_deadline_that_has_passed_stays_so(deadline_of: Any, router: Router) -> None:
    clocks = Clocks({1: 3600.0})
    clocks.deadline_at = clocks.monotonic() - 10.0
    deadline = deadline_of(clocks, router)
    assert deadline is not None
    assert deadline <= clocks.monotonic()
