"""Event streams by themselves: what is sent, and what ends them."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from inferry_server.http.event_stream import EventStream

GET: dict[str, Any] = {"type": "http", "method": "GET"}


class Client:
    """Takes what is sent, and goes when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.goes = asyncio.Event()

    async def receive(self) -> Any:
        await self.goes.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent if message["type"] == "http.response.body"]


async def two_and(error: Exception | None = None) -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    yield b"data: 2\n\n"
    if error is not None:
        raise error


def test_events_are_sent_as_they_come_and_the_answer_ends_after_the_last() -> None:
    async def answered() -> Client:
        client = Client()
        await EventStream(two_and())(GET, client.receive, client.send)
        return client

    client = asyncio.run(answered())
    assert (client.sent[0]["status"], dict(client.sent[0]["headers"])[b"content-type"]) == (200, b"text/event-stream")
    assert client.bodies == [b"data: 1\n\n", b"data: 2\n\n", b""]
    assert [message.get("more_body") for message in client.sent[1:]] == [True, True, False]


def test_whoever_asks_for_the_head_gets_it_at_once_and_no_event() -> None:
    async def answered() -> Client:
        client = Client()
        await EventStream(two_and())(GET | {"method": "HEAD"}, client.receive, client.send)
        return client

    client = asyncio.run(answered())
    assert client.bodies == [b""]


def test_a_stream_ends_when_its_client_goes_or_it_is_cancelled() -> None:
    async def ended(*, by_client: bool) -> tuple[list[bytes], bool]:
        client, closed, begun = Client(), asyncio.Event(), asyncio.Event()

        async def for_ever() -> AsyncIterator[bytes]:
            try:
                yield b"data: 1\n\n"
                begun.set()
                await asyncio.Event().wait()
            finally:
                closed.set()

        streaming = asyncio.create_task(EventStream(for_ever())(GET, client.receive, client.send))
        await begun.wait()
        if by_client:
            client.goes.set()
            await streaming
        else:
            streaming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await streaming
        await asyncio.wait_for(closed.wait(), 30)
        await asyncio.sleep(0)
        return client.bodies, asyncio.all_tasks() == {asyncio.current_task()}

    for by_client in (True, False):
        assert asyncio.run(ended(by_client=by_client)) == ([b"data: 1\n\n"], True)


def test_what_the_events_raise_is_raised() -> None:
    async def answered() -> None:
        client = Client()
        await EventStream(two_and(RuntimeError("no snapshot")))(GET, client.receive, client.send)

    with pytest.raises(RuntimeError, match="no snapshot"):
        asyncio.run(answered())


_STREAMED = """
import asyncio, sys
from inferry_server.http.event_stream import EventStream

async def streamed():
    async def events():
        yield b"data: 1"
    async def receive():
        await asyncio.Event().wait()
    async def send(message):
        pass
    before = set(sys.modules)
    await EventStream(events())({"method": "GET"}, receive, send)
    print(*sorted(set(sys.modules) - before))

asyncio.run(streamed())
"""


def test_the_first_stream_imports_nothing_while_requests_wait() -> None:
    done = subprocess.run([sys.executable, "-c", _STREAMED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
