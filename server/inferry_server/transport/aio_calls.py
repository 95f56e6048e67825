"""Calls of grpcio's asyncio server: handlers reply from any thread, the loop sends."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from inferry_server.rpc.call import StreamReceiver
from inferry_server.rpc.router import Account, EndingCall
from inferry_server.rpc.statuses import OK, Status
from inferry_server.security.certificate_names import AuthContext, names_of
from inferry_server.transport.remaining import settled
from inferry_server.transport.unsent import is_full

CANCEL_SLACK_S = 0.005
"""How long grpcio may take to tell that a call was cancelled; until then it looks as if its client had half-closed."""


class _AuthContext:
    """The `AuthContext` of grpcio's asyncio server, in which names of properties are text."""

    __slots__ = ("_properties",)

    def __init__(self, properties: Mapping[str, Iterable[bytes]]) -> None:
        self._properties = properties

    def get(self, key: bytes, default: Iterable[bytes], /) -> Iterable[bytes]:
        """As `AuthContext.get`."""
        return self._properties.get(key.decode(), default)


def auth_context_of(context: Any) -> AuthContext:
    """What gRPC tells of the client of a call: of its verified certificate, among other things."""
    return _AuthContext(context.auth_context())


class _BaseCall(EndingCall):
    """What unary and streaming calls of this transport share."""

    def __init__(
        self,
        method: str,
        metadata: Sequence[tuple[str, str | bytes]],
        context: Any,
        loop: asyncio.AbstractEventLoop,
        account: Account,
    ) -> None:
        remaining_s = settled(context.time_remaining)  # guard: clock-jump-deadline-aio
        deadline = None if remaining_s is None else time.monotonic() + remaining_s
        super().__init__(method, metadata, deadline, account)
        self._context = context
        self._loop = loop

    def certificate_names(self) -> Sequence[str]:
        """As `OpenCall.certificate_names`."""
        return names_of(self.auth_context())

    def auth_context(self) -> AuthContext:
        """As `OpenCall.auth_context`."""
        return auth_context_of(self._context)


class AioCall(_BaseCall):
    """A unary call whose outcome the loop awaits.

    Attributes:
        outcome: its status, and the reply where that is OK.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.outcome: asyncio.Future[tuple[Status, bytes]] = self._loop.create_future()

    def reply(self, message: bytes) -> None:
        """As `Call.reply`."""
        self._end_with(OK, message)

    def abort(self, status: Status) -> None:
        """As `Call.abort`."""
        self._end_with(status, b"")

    def _end_with(self, status: Status, message: bytes) -> None:
        if self._end(status):
            self._loop.call_soon_threadsafe(self._set_outcome, (status, message))

    def _set_outcome(self, outcome: tuple[Status, bytes]) -> None:
        if not self.outcome.done():  # the client may have gone in between
            self.outcome.set_result(outcome)


class AioStreamCall(_BaseCall):
    """A streaming call: the loop reads requests to a receiver and writes replies one after another.

    Attributes:
        active_at: when its client last sent or read something, or was sent something, on the loop's clock.
        task: that runs it, until its last reply is read or its connection has ended.
    """

    def __init__(self, method: str, metadata: Any, context: Any, loop: Any, account: Account) -> None:
        super().__init__(method, metadata, context, loop, account)
        self._outgoing: asyncio.Queue[bytes | Status] = asyncio.Queue()
        self._outgoing_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._receiver: StreamReceiver | None = None
        self._draining = self._half_closing = False
        self._reads = self._writes = False
        self._asked = self._told = 0  # requests that came, and replies
        self.active_at = loop.time()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - grpcio runs every handler in one
        self.task = task
        self._wanted, self._writable = asyncio.Event(), asyncio.Event()
        self._wanted.set()
        self._writable.set()

    @property
    def awaits_request(self) -> bool:
        """As `open_calls.Stream`."""
        return self._reads and not self._writes and self._asked <= self._told

    @property
    def awaits_reader(self) -> bool:
        """As `open_calls.Stream`."""
        return self._writes

    def peer(self) -> str:
        """Its client's address, as gRPC writes it."""
        return str(self._context.peer())

    def read(self, messages: AsyncIterator[bytes], receiver: StreamReceiver) -> None:
        """Give the client's requests to a receiver, one by one."""
        self._receiver = receiver
        self._reader = asyncio.ensure_future(self._read(messages, receiver))

    def stop_reading(self) -> None:
        """Read no more."""
        if self._reader is not None:
            self._reader.cancel()

    def drain(self) -> None:
        """Tell the receiver that the server stops, but after a half-close that has come already."""
        self._draining = True
        if self._receiver is not None and not self._half_closing:
            self._receiver.on_drain()

    async def pump(self) -> Status:
        """Write what is sent until the call is ended; returns its status."""
        while isinstance(item := await self._outgoing.get(), bytes):
            await self._write(item)
            self._outgoing_bytes -= len(item)
            if not is_full(self._outgoing.qsize(), self._outgoing_bytes):
                self._writable.set()
        return item

    async def _write(self, message: bytes) -> None:
        self._writes, self.active_at = True, self._loop.time()
        try:
            await self._context.write(message)
            self._writes, self.active_at = False, self._loop.time()
        except Exception as error:  # grpcio's error for a call that is gone has no public name
            raise asyncio.CancelledError from error

    def pause_reading(self) -> None:
        """As `StreamCall.pause_reading`."""
        self._wanted.clear()  # called by the receiver, and so on the loop

    def resume_reading(self) -> None:
        """As `StreamCall.resume_reading`."""
        self._loop.call_soon_threadsafe(self._wanted.set)

    def send(self, message: bytes) -> None:
        """As `StreamCall.send`."""
        self._loop.call_soon_threadsafe(self._put, message)

    def finish(self) -> None:
        """As `StreamCall.finish`."""
        self.abort(OK)

    def abort(self, status: Status) -> None:
        """As `Call.abort`; a stream's comes after what was sent."""
        if self._end(status):
            self._loop.call_soon_threadsafe(self._put, status)

    async def _read(self, messages: AsyncIterator[bytes], receiver: StreamReceiver) -> None:
        self._reads = True
        async for message in messages:
            self._reads, self.active_at = False, self._loop.time()
            self._asked += 1
            if self._draining or self._ended:  # neither it nor a half-close after it counts any more
                return
            receiver.on_message(message)
            await asyncio.sleep(0)  # replies that were sent for it get into the queue
            await self._wanted.wait()
            await self._writable.wait()
            self._reads = True
        self._reads = False
        self._half_closing = True
        await asyncio.sleep(CANCEL_SLACK_S)
        self._half_closing = False
        if not self._context.cancelled():
            receiver.on_half_close()
            if self._draining:
                receiver.on_drain()

    def _put(self, item: bytes | Status) -> None:
        self._outgoing.put_nowait(item)
        self._told += 1
        self._outgoing_bytes += len(item) if isinstance(item, bytes) else 0
        if is_full(self._outgoing.qsize(), self._outgoing_bytes):
            self._writable.clear()
