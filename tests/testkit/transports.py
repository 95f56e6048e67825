"""Transports by name, those that are processes included."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from inferry_server.front_ends.plan import FrontEndPlan
from inferry_server.front_ends.transport import FrontEndsTransport
from inferry_server.rpc.router import Router
from inferry_server.settings.settings import TRANSPORTS
from inferry_server.transport import completion_queue
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import Transport, make_transport
from testkit.servers import FRONT_ENDS

ALL_TRANSPORTS = (*TRANSPORTS, FRONT_ENDS)


def make(name: str, router: Router, options: TransportOptions) -> Transport:
    """A transport, not started; FRONT_ENDS for one front end in a process of its own."""
    if name != FRONT_ENDS:
        return make_transport(name, router, options)
    plan = FrontEndPlan(address="", transport="completion_queue", options=options, log_level="error")
    return FrontEndsTransport(router, options, plan, 1)


@contextmanager
def moved_clock(transport: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """What lets a transport's clock jump ahead."""
    ahead = [0.0]

    def monotonic() -> float:
        return time.monotonic() + ahead[0]

    read = SimpleNamespace(monotonic=monotonic, time=time.time, sleep=time.sleep)
    monkeypatch.setattr(completion_queue, "time", read)
    if hasattr(transport, "_loop"):
        monkeypatch.setattr(transport._loop, "time", monotonic)

    def advance(seconds: float) -> None:
        ahead[0] += seconds

    yield advance


def on_their_way(transport: Any) -> int:
    """Replies of a transport that it does not know to be read: while the clock jumps, nobody can read one in time."""
    if hasattr(transport, "_handler"):  # of grpcio's asyncio server
        transport = transport._handler
        unary: int = len(transport.unread._on_their_way)
    else:
        unary = len(transport.unread)
    return unary + sum(bool(stream.awaits_reader) for stream in list(transport._streams))
