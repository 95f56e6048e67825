"""A client that does not read is not read: what waits to be sent on one stream is bounded, over both transports."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.trace import NoTracer
from inferry_server.transport import core_layer
from inferry_server.transport.aio_calls import AioStreamCall
from inferry_server.transport.queue_calls import QueueStreamCall

ASKED = 200
BOUNDS = [(1, 64), (1 << 20, 4)]  # bytes of a reply, and how many of them may wait


class Echo:
    """Sends a reply of so many bytes for every message that is read."""

    def __init__(self, call: Any, nbytes: int) -> None:
        self._call, self._reply, self.read = call, bytes(nbytes), 0

    def on_message(self, message: bytes) -> None:
        self.read += 1
        self._call.send(self._reply)

    def on_half_close(self) -> None:
        self._call.finish()

    def on_drain(self) -> None:
        raise AssertionError


def account() -> Any:
    return Router(ServerMetrics(), NoTracer()).received("/test/Stream", ())


@pytest.mark.parametrize(("nbytes", "most"), BOUNDS)
def test_the_asyncio_server_reads_on_when_what_was_sent_has_left(nbytes: int, most: int) -> None:
    async def play() -> None:
        writes = asyncio.Semaphore(0)

        async def write(_: bytes) -> None:
            await writes.acquire()

        async def messages() -> AsyncIterator[bytes]:
            for _ in range(ASKED):
                yield b"asked"

        context = SimpleNamespace(write=write, time_remaining=lambda: None, cancelled=lambda: False)
        call = AioStreamCall("/test/Stream", (), context, asyncio.get_running_loop(), account())
        echo = Echo(call, nbytes)
        call.read(messages(), echo)
        pumping = asyncio.ensure_future(call.pump())
        for _ in range(20 * ASKED):  # turns of the loop: many times what all of it takes
            await asyncio.sleep(0)
        assert echo.read <= most + 1  # one is being written
        for _ in range(ASKED):
            writes.release()
        await asyncio.wait_for(pumping, 30)
        assert echo.read == ASKED

    asyncio.run(play())


@pytest.mark.parametrize(("nbytes", "most"), BOUNDS)
def test_the_completion_queue_reads_on_when_what_was_sent_has_left(
    nbytes: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []
    sends: list[Any] = []
    monkeypatch.setattr(core_layer, "watch_close", lambda *_: None)
    monkeypatch.setattr(core_layer, "message_of", lambda event: event.message)
    monkeypatch.setattr(core_layer, "receive_message", lambda _, on_event: reads.append(on_event))
    monkeypatch.setattr(core_layer, "send_message", lambda _, __, on_event, **___: sends.append(on_event))
    event: Any = SimpleNamespace(call_details=SimpleNamespace(deadline=1e13), invocation_metadata=(), call=None)
    call = QueueStreamCall(event, "/test/Stream", account(), SimpleNamespace(now=0.0))
    echo = Echo(call, nbytes)
    call.begin(echo)

    def read_all() -> None:
        while reads and echo.read < ASKED:
            reads.pop()(SimpleNamespace(message=b"asked"))

    read_all()
    assert echo.read <= most + 1
    while sends:
        sends.pop()(SimpleNamespace(success=True))
        read_all()
    assert echo.read == ASKED
