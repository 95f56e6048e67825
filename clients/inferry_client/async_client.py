"""The asynchronous client: carries out what `calling` decides, on gRPC's channels for asyncio."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

import grpc
import grpc.aio

from inferry_client.calling.balancing import PROBE_TIMEOUT_S
from inferry_client.calling.calls import Pause, Probe, Send, Step, Steps
from inferry_client.calling.joined_tasks import TaskJoiner
from inferry_client.calling.streamed_tasks import TaskStreams
from inferry_client.calling.streaming import check_items, check_window, stream_in_tasks
from inferry_client.connecting import health
from inferry_client.connecting.channels import open_async_channel
from inferry_client.connecting.connection import READY_INTERVAL_S, READY_TIMEOUT_S, Connection, document
from inferry_client.connecting.forks import asyncio_is_lost, lose_asyncio
from inferry_client.errors import (
    InferryError,
    error_from_closing,
    error_from_fork,
    error_from_other_loop,
    error_from_silence,
)
from inferry_client.messages import questions, requests
from inferry_client.messages.call import Call
from inferry_client.messages.pictures import Pictures
from inferry_client.messages.requests import DEFAULT_WINDOW, Tensors, request_of
from inferry_client.messages.streams import StreamedRpc
from inferry_client.results import ClassifyResult, InferResult
from inferry_proto.services import Method

P = ParamSpec("P")
Result = TypeVar("Result")


def _awaitable(build: Callable[P, Call[Result]]) -> "Callable[Concatenate[AsyncClient, P], Awaitable[Result]]":
    """The method that makes the call which `build` builds; its result is awaited."""

    def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Result]:
        call = build(*args, **kwargs)
        if client._batching is None:
            call.serialize()  # now: what is awaited later sends what was there at the call
            return client._perform(call)
        return client.run(call)

    return document(method, build)


class AsyncClient(Connection):
    """`Client` for asyncio: the same methods, awaited, with the same errors.

    It belongs to the event loop of its first call, and refuses calls on others. Any number of tasks may call at the
    same time; one that is cancelled cancels its call. The settings are those of `Connection`.
    """

    classify = _awaitable(requests.classify)
    infer = _awaitable(requests.infer)
    describe = _awaitable(questions.describe_model)
    models = _awaitable(questions.repository_index)
    statistics = _awaitable(questions.statistics)
    explain = _awaitable(questions.explain)
    ready = _awaitable(questions.server_ready)
    live = _awaitable(questions.server_live)
    model_ready = _awaitable(questions.model_ready)
    model_metadata = _awaitable(questions.model_metadata)
    server_metadata = _awaitable(questions.server_metadata)
    _open_channel = staticmethod(open_async_channel)
    _joiner: TaskJoiner | None = None
    _asking: asyncio.Lock | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _in_child(self) -> Any:
        if self._channels and not self._closing.is_set():
            lose_asyncio()
        of_parent = super()._in_child(), self._joiner, self._loop
        self._joiner = self._loop = self._asking = None
        return of_parent

    async def close(self) -> None:
        """Give the connections back; calls still under way are cancelled."""
        self._closing.set()
        for channel in {channel for channels in self._channels for channel in channels}:
            await channel.close()

    async def wait_until_ready(self, model: str = "", *, version: str = "", timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once the server, or a model, takes requests; see `Client.wait_until_ready`."""
        call = questions.readiness(model, version=version, timeout_s=timeout_s)
        await self._carry_out(self._session.wait_until_ready(call, interval_s=READY_INTERVAL_S))

    @overload
    def stream(
        self,
        model: str,
        items: Iterable[Tensors] | AsyncIterable[Tensors],
        *,
        window: int = DEFAULT_WINDOW,
        **settings: Any,
    ) -> AsyncIterator[InferResult]: ...

    @overload
    def stream(
        self,
        model: str,
        items: Iterable[Pictures] | AsyncIterable[Pictures],
        *,
        window: int = DEFAULT_WINDOW,
        **settings: Any,
    ) -> AsyncIterator[ClassifyResult]: ...

    def stream(
        self,
        model: str,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        window: int = DEFAULT_WINDOW,
        **settings: Any,
    ) -> AsyncIterator[Any]:
        """The results of items in their order; see `Client.stream`. The items may come asynchronously."""
        check_window(window)
        check_items(items, Iterable, AsyncIterable)
        return self._stream(items, lambda item: request_of(model, item, settings), window)

    async def _stream(
        self, items: Iterable[Any] | AsyncIterable[Any], build: Callable[[Any], Call[Any]], window: int
    ) -> AsyncIterator[Any]:
        streams = TaskStreams(self._session, self._connect, self._explain, self._perform)
        results = stream_in_tasks(items, lambda item: streams.ask(build(item)), window=window)
        try:
            async for result in results:
                yield result
        finally:
            await results.aclose()  # it would end only when it is collected
            streams.close()

    def _connect(self, step: Send, rpc: StreamedRpc) -> Any:
        stub = self._stub(step.server, rpc.method, asked=step.call.asked)
        return stub(metadata=self._all_metadata(step.call))

    def run(self, call: Call[Result]) -> Coroutine[Any, Any, Result]:
        """Make a call that `requests` built and read its reply."""
        if self._joiner and call.joint and self._session.known_limit(call):
            return self._joiner.run(call)
        return self._run(call)

    async def _run(self, call: Call[Result]) -> Result:
        if self._batching and call.joint:
            limit = self._session.known_limit(call)
            if limit is None:
                limit = await self._learn_limit(call)
            if limit:
                if self._joiner is None:
                    self._joiner = TaskJoiner(self._batching, self._session, self._perform)
                result: Result = await self._joiner.run(call)
                return result
        return await self._perform(call)

    async def _perform(self, call: Call[Result]) -> Result:
        session = self._session
        first = session.first(call)
        if first is None:
            return await self._carry_out(session.perform(call))
        try:
            reply = await self._send(first)
        except InferryError as error:
            others: Steps[Result] = session.after(first, error)
        else:
            result: Result = session.answered(first, reply)
            return result
        return await self._carry_out(others)

    async def _learn_limit(self, call: Call[Any]) -> int:
        """How many rows of its kind may travel together; what is spent on asking is of the call's time."""
        timeout_s, deadline = self._session.time_of(call)
        self._asking = self._asking or asyncio.Lock()
        try:
            await asyncio.wait_for(self._asking.acquire(), timeout_s)  # one of many callers asks
        except TimeoutError:
            raise error_from_silence(asked=call.asked, timeout_s=timeout_s) from None
        try:
            limit = self._session.known_limit(call)
            if limit is None:
                call.waited_s = self._session.waited_s(timeout_s, deadline)
                limit = await self._carry_out(self._session.learn_limit(call))
        finally:
            self._asking.release()
        call.waited_s = self._session.waited_s(timeout_s, deadline)
        return limit

    def _stub(self, server: int, called: Method, *, asked: str, control: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if loop is not self._loop:  # guard: client-one-loop
            raise error_from_other_loop(address=self.address, asked=asked)
        if asyncio_is_lost():  # guard: client-asyncio-forked
            raise error_from_fork(address=self.address, asked=asked)
        return super()._stub(server, called, asked=asked, control=control)

    async def _carry_out(self, steps: Steps[Result]) -> Result:
        try:
            step: Step = next(steps)
            while True:
                try:
                    came = await self._send(step) if type(step) is Send else await self._take(step)
                except Exception as error:  # noqa: BLE001 - it is the call's to handle, whatever it is
                    step = steps.throw(error)
                else:
                    step = steps.send(came)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            steps.close()  # a task that was cancelled leaves no attempt counted as under way

    async def _take(self, step: Pause | Probe) -> Any:
        if isinstance(step, Probe):
            return self._probe(step.server)
        return await self._pause(step)

    async def _send(self, step: Send) -> Any:
        call = step.call
        known = self._methods.get((step.server, call.method.path)) if asyncio.get_running_loop() is self._loop else None
        method = known or self._stub(step.server, call.method, asked=call.asked, control=call.control)
        metadata = self._all_metadata(call) if self._metadata or call.metadata else None
        try:
            return await method(
                call.serialize(), timeout=step.timeout_s, metadata=metadata, wait_for_ready=step.wait or None
            )
        except grpc.RpcError as error:
            raise self._error_of(error, step) from error
        except (grpc.aio.UsageError, asyncio.CancelledError) as error:
            if not self._closing.is_set():
                raise
            raise error_from_closing(address=self.address, asked=call.asked) from error

    async def _pause(self, step: Pause) -> None:
        await asyncio.sleep(step.seconds)
        if self._closing.is_set():
            raise error_from_closing(address=self.address, asked="ask again")

    def _probe(self, server: int) -> None:
        check = self._channels[server][1].unary_unary(health.CHECK_PATH)
        try:
            probe = check(health.CHECK_REQUEST, timeout=PROBE_TIMEOUT_S, metadata=self._metadata)
        except grpc.aio.UsageError:  # the client was closed meanwhile
            return
        probe.add_done_callback(lambda _: asyncio.ensure_future(self._note_probe(server, probe)))

    async def _note_probe(self, server: int, probe: Any) -> None:
        code = await probe.code()
        answered = code is grpc.StatusCode.OK
        serving = health.is_serving(await probe) if answered else health.lacks_service(code.name)
        self._session.probed(server, serving=serving)
