"""Requests of asyncio's tasks on bidirectional RPCs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from inferry_client.calling.calls import Send, Session
from inferry_client.calling.exchange import Exchange, Streamed
from inferry_client.errors import InferryError, error_from_silence
from inferry_client.messages.call import Call
from inferry_client.messages.streams import StreamedRpc, streamed_rpc


class TaskStreams:
    """What `ThreadStreams` does, on one event loop: a task reads each stream, what is left are tasks.

    gRPC loses the status of an RPC that ends while something is written to it. So where a stream ended
    without a reply, the next one gets its second request only after the reply to its first.

    Args:
        session: of the client.
        connect: opens an RPC with gRPC's `write`, `cancel` and an asynchronous iterator of replies.
        explain: what an exception of that RPC means.
        run: makes one call, now.
    """

    def __init__(
        self,
        session: Session,
        connect: Callable[[Send, StreamedRpc], Any],
        explain: Callable[[BaseException, Send], InferryError],
        run: Callable[[Call[Any]], Awaitable[Any]],
    ) -> None:
        self._session = session
        self._connect = connect
        self._explain = explain
        self._run = run
        self._streams: dict[str, _Stream] = {}
        self._careful = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, call: Call[Any]) -> Callable[[], Awaitable[Any]]:
        """Send a request, as fast as the server reads; what comes back waits for its result."""
        _, deadline = self._session.time_of(call)
        request: Any = call.request
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard of, though nobody waits
        streamed = Streamed(call, deadline, future, request.id)
        stream = self._streams.get(call.method.path)
        if stream and self._careful:
            await stream.proven.wait()
            stream = self._streams.get(call.method.path)
        stream = stream or self._begin(call)
        if stream is None:
            self._ask_alone(streamed)
        else:
            message = stream.exchange.send(streamed)
            with suppress(Exception):  # who reads the stream learns of its end too, and asks what is left
                await stream.rpc.write(message)
        return partial(self._wait, streamed)

    def close(self) -> None:
        """End the streams; what is under way gets no result."""
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.rpc.cancel()
        for task in self._tasks:
            task.cancel()

    def _begin(self, call: Call[Any]) -> "_Stream | None":
        rpc = streamed_rpc(call)
        server = self._session.stream_server(rpc.method.path)
        if server is None:
            return None
        timeout_s, deadline = self._session.time_of(call)
        step = Send(call, server, timeout_s, timeout_s, deadline)
        stream = self._streams[call.method.path] = _Stream(self._session, step, rpc, self._connect(step, rpc))
        self._start(self._read(stream))
        return stream

    async def _read(self, stream: "_Stream") -> None:
        problem: BaseException | None = None
        try:
            async for reply in stream.rpc:
                stream.proven.set()
                self._careful = False
                if refused := stream.exchange.settle(reply):
                    self._ask_alone(refused)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, what is left is asked again
            problem = error
        path = stream.step.call.method.path
        wanted = self._streams.get(path) is stream
        if wanted:
            del self._streams[path]
            if problem:
                reason = self._explain(problem, stream.step)
                self._session.stream_ended(stream.step.server, stream.streamed_rpc.method.path, reason)
        self._careful = not stream.proven.is_set()
        stream.proven.set()
        stream.rpc.cancel()
        for streamed in stream.exchange.end():
            if wanted:
                self._ask_alone(streamed)
            else:
                streamed.future.cancel()  # the stream was closed, and nobody waits

    def _ask_alone(self, streamed: Streamed) -> None:
        async def ask() -> None:
            try:
                result = await self._run(replace(streamed.call, timeout_s=self._session.left_of(streamed.deadline)))
            except InferryError as error:
                _settle(streamed, error=error)
            except BaseException:
                streamed.future.cancel()
                raise
            else:
                _settle(streamed, result)

        streamed.alone = True
        self._start(ask())

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, streamed: Streamed) -> Any:
        future = streamed.future
        if not (future.done() or streamed.alone):
            await asyncio.wait((future,), timeout=self._session.left_of(streamed.deadline))
            if not (future.done() or streamed.alone):
                raise self._silence(streamed)
        return await future

    def _silence(self, streamed: Streamed) -> InferryError:
        timeout_s, _ = self._session.time_of(streamed.call)
        error = error_from_silence(asked=streamed.call.asked, timeout_s=timeout_s)
        stream = self._streams.get(streamed.call.method.path)
        if stream:
            self._session.stream_ended(stream.step.server, stream.streamed_rpc.method.path, error)
        return error


class _Stream:
    """One bidirectional RPC."""

    def __init__(self, session: Session, step: Send, streamed: StreamedRpc, rpc: Any) -> None:
        self.step = step
        self.streamed_rpc = streamed
        self.rpc = rpc
        self.proven = asyncio.Event()  # a reply has come, or the end
        self.exchange = Exchange(
            streamed, address=session.servers[step.server], answered=partial(session.stream_answered, step.server)
        )


def _settle(streamed: Streamed, result: Any = None, error: InferryError | None = None) -> None:
    if streamed.future.done():
        return
    if error:
        streamed.future.set_exception(error)
    else:
        streamed.future.set_result(result)
