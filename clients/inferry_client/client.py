"""The synchronous client: carries out what `calling` decides, on gRPC's blocking channels."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

import grpc

from inferry_client.calling.balancing import PROBE_TIMEOUT_S
from inferry_client.calling.calls import Pause, Probe, Send, Step, Steps
from inferry_client.calling.joined_threads import ThreadJoiner
from inferry_client.calling.joining import Batching
from inferry_client.calling.streamed_threads import ThreadStreams
from inferry_client.calling.streaming import check_items, check_window, stream_in_threads
from inferry_client.connecting import health
from inferry_client.connecting.channels import open_channel
from inferry_client.connecting.connection import READY_INTERVAL_S, READY_TIMEOUT_S, Connection, document
from inferry_client.errors import InferryError, error_from_closing, error_from_silence
from inferry_client.messages import questions, requests
from inferry_client.messages.call import Call
from inferry_client.messages.pictures import Pictures
from inferry_client.messages.requests import DEFAULT_WINDOW, Tensors, request_of
from inferry_client.messages.streams import StreamedRpc
from inferry_client.results import ClassifyResult, InferResult

P = ParamSpec("P")
Result = TypeVar("Result")


def _blocking(build: Callable[P, Call[Result]]) -> "Callable[Concatenate[Client, P], Result]":
    """The method that makes the call which `build` builds, and waits for its result."""

    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Result:
        call = build(*args, **kwargs)
        return client._perform(call) if client._batching is None else client.run(call)

    return document(method, build)


class Client(Connection):
    """A connection to one server or to several that serve the same.

    Any thread may call any method, also at the same time. A call blocks until its answer, its
    error or its timeout, whichever is first; retries happen inside that time. It connects at the
    first call and again by itself whenever the connection is lost. `close` ends calls under way, and
    every later one, with RequestCancelledError.

    Every method raises InferryError or one of its kinds, and nothing of gRPC's. The settings are
    those of `Connection`.
    """

    classify = _blocking(requests.classify)
    infer = _blocking(requests.infer)
    describe = _blocking(questions.describe_model)
    models = _blocking(questions.repository_index)
    statistics = _blocking(questions.statistics)
    explain = _blocking(questions.explain)
    ready = _blocking(questions.server_ready)
    live = _blocking(questions.server_live)
    model_ready = _blocking(questions.model_ready)
    model_metadata = _blocking(questions.model_metadata)
    server_metadata = _blocking(questions.server_metadata)
    _open_channel = staticmethod(open_channel)
    _joiner: ThreadJoiner | None = None
    describe_model, repository_index, server_ready, server_live = describe, models, ready, live

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_child(self) -> Any:
        of_parent, self._joiner = (super()._in_child(), self._joiner), None
        return of_parent

    def close(self) -> None:
        """Give the connections back; calls still under way are cancelled."""
        with self._opening:
            self._closing.set()
            for channel in {channel for channels in self._channels for channel in channels}:
                channel.close()

    def wait_until_ready(self, model: str = "", *, version: str = "", timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once the server, or a model, takes requests.

        Raises:
            ServerUnavailableError: no server answered within the timeout.
            DeadlineExceededError: it did, but was not ready.
        """
        call = questions.readiness(model, version=version, timeout_s=timeout_s)
        self._carry_out(self._session.wait_until_ready(call, interval_s=READY_INTERVAL_S))

    @overload
    def stream(
        self, model: str, items: Iterable[Tensors], *, window: int = DEFAULT_WINDOW, **settings: Any
    ) -> Iterator[InferResult]: ...

    @overload
    def stream(
        self, model: str, items: Iterable[Pictures], *, window: int = DEFAULT_WINDOW, **settings: Any
    ) -> Iterator[ClassifyResult]: ...

    def stream(
        self, model: str, items: Iterable[Any], *, window: int = DEFAULT_WINDOW, **settings: Any
    ) -> Iterator[Any]:
        """The results of items in their order: pictures are classified, mappings of arrays are tensors.

        Items travel on one bidirectional RPC, to one server. An item that the server refuses there,
        or does not answer before the RPC breaks, becomes a call of its own, with its retries, also to
        other servers; so do all items where a server has no such RPC. Items are taken on another
        thread, at most `window` of them before their results are; an error is raised at its item's
        place and ends the stream.

        Args:
            model: its name.
            items: what `classify` or `infer` takes, one after the other.
            window: requests under way, or answered whose results have not been taken.
            settings: of `classify` or `infer`, for each item.
        """
        check_window(window)
        check_items(items, Iterable)
        return self._stream(items, lambda item: request_of(model, item, settings), window)

    def _stream(self, items: Iterable[Any], build: Callable[[Any], Call[Any]], window: int) -> Iterator[Any]:
        streams = ThreadStreams(self._session, self._connect, self._explain, self._perform, window=window)
        try:
            yield from stream_in_threads(items, lambda item: streams.ask(build(item)), window=window)
        finally:
            streams.close()

    def _connect(self, step: Send, rpc: StreamedRpc, messages: Iterator[Any]) -> Any:
        stub = self._stub(step.server, rpc.method, asked=step.call.asked)
        return stub(messages, metadata=self._all_metadata(step.call))

    def run(self, call: Call[Result]) -> Result:
        """Make a call that `requests` built and read its reply."""
        if self._batching and call.joint:
            limit = self._session.known_limit(call)
            if limit is None:
                limit = self._learn_limit(call)
            if limit:
                joiner = self._joiner or self._joined(self._batching)
                result: Result = joiner.run(call)
                return result
        return self._perform(call)

    def _perform(self, call: Call[Result]) -> Result:
        session = self._session
        first = session.first(call)
        if first is None:
            return self._carry_out(session.perform(call))
        try:
            reply = self._send(first)
        except InferryError as error:
            others: Steps[Result] = session.after(first, error)
        else:
            result: Result = session.answered(first, reply)
            return result
        return self._carry_out(others)

    def _learn_limit(self, call: Call[Any]) -> int:
        """How many rows of its kind may travel together; what is spent on asking is of the call's time."""
        timeout_s, deadline = self._session.time_of(call)
        if not self._learning.acquire(timeout=timeout_s):  # one of many callers asks
            raise error_from_silence(asked=call.asked, timeout_s=timeout_s)
        try:
            limit = self._session.known_limit(call)
            if limit is None:
                call.waited_s = self._session.waited_s(timeout_s, deadline)
                limit = self._carry_out(self._session.learn_limit(call))
        finally:
            self._learning.release()
        call.waited_s = self._session.waited_s(timeout_s, deadline)
        return limit

    def _joined(self, batching: Batching) -> ThreadJoiner:
        with self._opening:
            if self._joiner is None:
                self._joiner = ThreadJoiner(batching, self._session, self._perform)
            return self._joiner

    def _carry_out(self, steps: Steps[Result]) -> Result:
        try:
            step: Step = next(steps)
            while True:
                try:
                    came = self._send(step) if type(step) is Send else self._take(step)
                except Exception as error:  # noqa: BLE001 - it is the call's to handle, whatever it is
                    step = steps.throw(error)
                else:
                    step = steps.send(came)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _take(self, step: Pause | Probe) -> Any:
        if isinstance(step, Probe):
            return self._probe(step.server)
        return self._pause(step)

    def _send(self, step: Send) -> Any:
        call = step.call
        method = self._methods.get((step.server, call.method.path)) or self._stub(
            step.server, call.method, asked=call.asked, control=call.control
        )
        metadata = self._all_metadata(call) if self._metadata or call.metadata else None
        try:
            return method(call.serialize(), timeout=step.timeout_s, metadata=metadata, wait_for_ready=step.wait or None)
        except grpc.RpcError as error:
            raise self._error_of(error, step) from error
        except ValueError as error:
            if not self._closing.is_set():
                raise
            raise error_from_closing(address=self.address, asked=call.asked) from error

    def _pause(self, step: Pause) -> None:
        if self._closing.wait(step.seconds):
            raise error_from_closing(address=self.address, asked="ask again")

    def _probe(self, server: int) -> None:
        def ended(future: Any) -> None:
            code = future.code()
            answered = code is grpc.StatusCode.OK
            serving = health.is_serving(future.result()) if answered else health.lacks_service(code.name)
            self._session.probed(server, serving=serving)

        try:
            check = self._channels[server][1].unary_unary(health.CHECK_PATH)
            probe = check.future(health.CHECK_REQUEST, timeout=PROBE_TIMEOUT_S, metadata=self._metadata)
        except ValueError:  # the client was closed meanwhile
            return
        probe.add_done_callback(ended)
