"""Clocks that the test moves, and a server that has one instead of the machine's."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from unittest import mock

from inferry_server import app, routes
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.executing.core_turns import ComputeGate
from inferry_server.lateness.ring import LateRequests
from inferry_server.models import loading, qualification
from inferry_server.services.inference import InferenceService
from inferry_server.transport import completion_queue, queue_calls


class ManualClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@contextmanager
def server_clock(clock: ManualClock, *, transport: bool = False) -> Iterator[None]:
    """A server that is built meanwhile goes by this clock: its deadlines, and what it learns of its models.

    Args:
        clock: of the server; who sleeps moves it.
        transport: the thread that reads connections goes by it too. Only for a gRPC that is played: the real one waits.
    """
    read = SimpleNamespace(monotonic=clock, time=time.time, sleep=clock.advance)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(qualification, "time", read))
        stack.enter_context(mock.patch.object(loading, "DynamicBatcher", partial(DynamicBatcher, clock=clock)))
        stack.enter_context(mock.patch.object(routes, "InferenceService", partial(InferenceService, clock=clock)))
        if transport:
            stack.enter_context(mock.patch.object(app, "ComputeGate", partial(ComputeGate, clock=clock)))
            stack.enter_context(mock.patch.object(completion_queue, "time", read))
            stack.enter_context(mock.patch.object(queue_calls, "time", read))
            # By this clock no second passes unless the test says so, and the watchdog goes by the machine's.
            stack.enter_context(mock.patch.object(LateRequests, "tick", return_value=None))
        yield
