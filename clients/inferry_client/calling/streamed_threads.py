"""Requests of threads on bidirectional RPCs."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from google.protobuf.message import Message

from inferry_client.calling.calls import Send, Session
from inferry_client.calling.exchange import Exchange, Streamed
from inferry_client.errors import InferryError, error_from_silence
from inferry_client.messages.call import Call
from inferry_client.messages.streams import StreamedRpc, streamed_rpc

Connect = Callable[[Send, StreamedRpc, Iterator[Message]], Any]


class ThreadStreams:
    """Sends requests on a bidirectional RPC, and those that are left as calls of their own.

    One thread asks; any may wait. A stream opens with the first request, and anew after it broke. It
    has a thread that reads it, beside the one that gRPC has for sending; what is left runs on threads
    of a pool, as many as the window. One lock guards the streams; nothing is sent while it is held.

    Args:
        session: of the client.
        connect: opens an RPC that sends these messages; an iterator of replies that can be cancelled.
        explain: what an exception of that RPC means.
        run: makes one call, now.
        window: requests under way.
    """

    def __init__(
        self,
        session: Session,
        connect: Connect,
        explain: Callable[[Exception, Send], InferryError],
        run: Callable[[Call[Any]], Any],
        *,
        window: int,
    ) -> None:
        self._session = session
        self._connect = connect
        self._explain = explain
        self._run = run
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        self._pool = ThreadPoolExecutor(window, thread_name_prefix="stream")

    def ask(self, call: Call[Any]) -> Callable[[], Any]:
        """Send a request; what comes back waits for its result."""
        _, deadline = self._session.time_of(call)
        request: Any = call.request
        streamed = Streamed(call, deadline, Future(), request.id)
        with self._lock:
            stream = self._streams.get(call.method.path) or self._begin(call)
            if stream:
                stream.outgoing.put(stream.exchange.send(streamed))
        if not stream:
            self._ask_alone(streamed)
        return partial(self._wait, streamed)

    def close(self) -> None:
        """End the streams; what is under way gets no result."""
        with self._lock:
            streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, call: Call[Any]) -> "_Stream | None":
        rpc = streamed_rpc(call)
        server = self._session.stream_server(rpc.method.path)
        if server is None:
            return None
        stream = self._streams[call.method.path] = _Stream(self._session, call, rpc, server)
        threading.Thread(target=self._read, args=(stream,), name="stream-replies", daemon=True).start()
        return stream

    def _read(self, stream: "_Stream") -> None:
        problem: Exception | None = None
        try:
            stream.rpc = self._connect(stream.step, stream.streamed_rpc, iter(stream.outgoing.get, None))
            for reply in stream.rpc:
                with self._lock:
                    refused = stream.exchange.settle(reply)
                if refused:
                    self._ask_alone(refused)
        except Exception as error:  # noqa: BLE001 - whatever it is, what is left is asked again
            problem = error
        self._end(stream, problem)

    def _end(self, stream: "_Stream", problem: Exception | None) -> None:
        with self._lock:
            path = stream.step.call.method.path
            wanted = self._streams.get(path) is stream
            if wanted:
                del self._streams[path]
            left = stream.exchange.end()
        stream.close()
        if wanted and problem:
            error = self._explain(problem, stream.step)
            self._session.stream_ended(stream.step.server, stream.streamed_rpc.method.path, error)
        for streamed in left:
            self._ask_alone(streamed)

    def _ask_alone(self, streamed: Streamed) -> None:
        def ask() -> None:
            try:
                result = self._run(replace(streamed.call, timeout_s=self._session.left_of(streamed.deadline)))
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is taken
                streamed.future.set_exception(error)
            else:
                streamed.future.set_result(result)

        streamed.alone = True
        try:
            self._pool.submit(ask)
        except RuntimeError:  # the stream was closed, and nobody waits
            streamed.future.cancel()

    def _wait(self, streamed: Streamed) -> Any:
        try:
            return streamed.future.result(None if streamed.alone else self._session.left_of(streamed.deadline))
        except TimeoutError:
            if streamed.alone:
                return streamed.future.result()
            raise self._silence(streamed) from None

    def _silence(self, streamed: Streamed) -> InferryError:
        timeout_s, _ = self._session.time_of(streamed.call)
        error = error_from_silence(asked=streamed.call.asked, timeout_s=timeout_s)
        with self._lock:
            stream = self._streams.get(streamed.call.method.path)
        if stream:
            self._session.stream_ended(stream.step.server, stream.streamed_rpc.method.path, error)
        return error


class _Stream:
    """One bidirectional RPC."""

    def __init__(self, session: Session, call: Call[Any], streamed: StreamedRpc, server: int) -> None:
        timeout_s, deadline = session.time_of(call)
        self.step = Send(call, server, timeout_s, timeout_s, deadline)
        self.streamed_rpc = streamed
        self.outgoing: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.rpc: Any = None
        self.exchange = Exchange(
            streamed, address=session.servers[server], answered=partial(session.stream_answered, server)
        )

    def close(self) -> None:
        self.outgoing.put(None)
        if self.rpc is not None:
            self.rpc.cancel()
