"""How the requests of an open loop travel: each as a call, or all of a connection on one stream."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Protocol

import grpc
import grpc.aio

from inferry_client.connecting.channels import error_from_rpc
from inferry_client.connecting.connection import BareChannel
from inferry_client.errors import InferryError, error_from_silence
from inferry_client.load.answers import WrongAnswerError
from inferry_client.load.payloads import Payloads
from inferry_client.load.streams import StreamFormat, StreamReply, error_of_ended_stream


class Caller(Protocol):
    """Makes requests on one connection; any number of tasks of one event loop may ask."""

    async def ask(self, index: int) -> Any:
        """The reply to the request of this index. Raises InferryError where there is none."""
        ...

    def check(self, reply: Any, index: int) -> None:
        """See that a reply answers the request of this index. Raises InferryError where it does not."""
        ...


def open_caller(channel: grpc.aio.Channel, bare: BareChannel, payloads: Payloads, *, timeout_s: float) -> Caller:
    """What sends the requests on a channel."""
    kind = StreamCaller if payloads.streamed else UnaryCaller
    return kind(channel, bare, payloads, timeout_s=timeout_s)


class UnaryCaller:
    """Each request is a call."""

    def __init__(self, channel: grpc.aio.Channel, bare: BareChannel, payloads: Payloads, *, timeout_s: float) -> None:
        self._method: Any = channel.unary_unary(payloads.unary_path)
        self._payloads = payloads
        self._address, self._metadata, self._timeout_s = bare.address, bare.metadata or None, timeout_s

    async def ask(self, index: int) -> bytes:
        """The reply's bytes."""
        request = self._payloads.requests[index]
        try:
            reply: bytes = await self._method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            asked = f"answer {self._payloads.name}"
            raise error_from_rpc(error, address=self._address, asked=asked, timeout_s=self._timeout_s) from error
        return reply

    def check(self, reply: bytes, index: int) -> None:
        """See that a reply answers the request of this index."""
        self._payloads.expectation.read(reply, index)


class StreamCaller:
    """All requests travel on one stream; one that broke is opened again with the next request."""

    def __init__(self, channel: grpc.aio.Channel, bare: BareChannel, payloads: Payloads, *, timeout_s: float) -> None:
        self._format = StreamFormat(payloads)
        self._method: Any = channel.stream_stream(self._format.path)
        self._metadata, self._timeout_s = bare.metadata or None, timeout_s
        self._address, self._asked = bare.address, f"answer {payloads.name}"
        self._numbers = itertools.count(1)
        self._stream: _OpenStream | None = None

    async def ask(self, index: int) -> StreamReply:
        """The reply, an error in its place included."""
        if self._stream is None or self._stream.ended:
            self._stream = _OpenStream()
            self._stream.reading = asyncio.ensure_future(self._read(self._stream))
        number = str(next(self._numbers))
        future = self._stream.send(number, self._format.request(index, number))
        alarm = asyncio.get_running_loop().call_later(self._timeout_s, partial(self._give_up, future))
        try:
            return await future
        finally:
            alarm.cancel()

    def check(self, reply: StreamReply, index: int) -> None:
        """See that a reply answers the request of this index."""
        self._format.check(reply, index, address=self._address, timeout_s=self._timeout_s)

    def _give_up(self, future: "asyncio.Future[StreamReply]") -> None:
        if not future.done():
            future.set_exception(error_from_silence(asked=self._asked, timeout_s=self._timeout_s))

    async def _read(self, stream: "_OpenStream") -> None:
        rpc = self._method(stream.requests(), metadata=self._metadata)
        address, asked, timeout_s = self._address, self._asked, self._timeout_s
        problem: InferryError = error_of_ended_stream(address=address, asked=asked, timeout_s=timeout_s)
        try:
            async for reply in rpc:
                stream.settle(self._format.read(reply))
        except grpc.RpcError as error:
            problem = error_from_rpc(error, address=address, asked=asked, timeout_s=timeout_s)
        except InferryError as error:
            problem = error
        finally:
            rpc.cancel()
            stream.end(problem)


class _OpenStream:
    """The requests of one stream that wait for their replies."""

    def __init__(self) -> None:
        self.ended = False
        self.reading: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[StreamReply]] = {}
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, number: str, request: bytes) -> "asyncio.Future[StreamReply]":
        """The future of a request's reply; it leaves when the server takes it."""
        future: asyncio.Future[StreamReply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._outgoing.put_nowait(request)
        return future

    async def requests(self) -> AsyncIterator[bytes]:
        """What is to be sent, as it comes."""
        while True:
            yield await self._outgoing.get()

    def settle(self, reply: StreamReply) -> None:
        """Give a reply to its request: that of its number, or the oldest where it has none.

        Raises:
            WrongAnswerError: it is for no request that waits.
        """
        number = reply.number or next(iter(self._waiting), "")
        future = self._waiting.pop(number, None)  # guard: load-stream-whose
        if future is None:
            raise WrongAnswerError(f"wrong answer: to request {number!r}, which does not wait")
        if not future.done():  # else it was given up
            future.set_result(reply)

    def end(self, problem: InferryError) -> None:
        """Every request that waits ends with this; the stream takes no more."""
        self.ended = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(problem)
        self._waiting.clear()
