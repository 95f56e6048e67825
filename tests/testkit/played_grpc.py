"""gRPC's core, played: a real server handles requests on the calling thread, and nothing travels.

Every round has the same events in the same order, so what a request costs can be counted.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.app import Server
from inferry_server.settings.settings import Settings
from inferry_server.transport import completion_queue
from testkit.clock import ManualClock, server_clock
from testkit.servers import ANY_PORT

PARTS = ("calls", "messages", "batch", "ends")
"""A round: calls come, then their messages, then nothing is ready, then the answers have gone."""


class PlayedGrpc:
    """The `CoreServer` of a transport, and its calls.

    Args:
        message: of every request; each gets bytes of its own.
        requests: in a round.
        deadline_s: of every call, from now; None for none.
        metadata: of every call.

    Attributes:
        requested: calls that were asked for.
        begun: operations that were started.
        marks: when each part of the last round began, and when the last one ended.
    """

    def __init__(self, message: bytes, requests: int, deadline_s: float | None = None, metadata: Any = ()) -> None:
        self._metadata = metadata
        self.requested = self.begun = 0
        self.marks: list[float] = []
        self._requests = requests
        self._operation = SimpleNamespace(
            message=lambda: message[:-1] + message[-1:],
            cancelled=lambda: False,  # asked of a call that was watched: nobody here goes away
        )
        deadline = float("inf") if deadline_s is None else time.time() + deadline_s
        self._details = SimpleNamespace(method=OPEN_INFERENCE["ModelInfer"].path.encode(), deadline=deadline)
        self._round_done: Callable[[], bool] = lambda: True
        self._called: Any = None
        self._stopped: Any = None
        self._started: list[SimpleNamespace] = []
        self._ready: list[SimpleNamespace] = []

    def listen(self, address: str, credentials: object) -> int:
        return 1

    def start(self) -> None: ...

    def shutdown(self, on_event: object) -> None: ...

    def request_call(self, on_event: object) -> None:
        self.requested += 1
        self._called = on_event

    def start_server_batch(self, operations: Sequence[object], on_event: object) -> None:
        self.begun += 1
        self._started.append(SimpleNamespace(tag=on_event, success=True, batch_operations=(self._operation,)))

    def peer(self) -> bytes:
        return b"ipv4:192.0.2.1:1024"

    def poll(self, until: float) -> SimpleNamespace:
        if len(self.marks) == PARTS.index("batch") + 1 and not self._started:
            return SimpleNamespace(tag=None)  # nothing is ready until what was read is answered
        while not self._ready:
            self.marks.append(time.perf_counter())
            part = len(self.marks)
            if part == 1:
                call = {"tag": self._called, "success": True, "call": self, "invocation_metadata": self._metadata}
                self._ready = [SimpleNamespace(call_details=self._details, **call) for _ in range(self._requests)]
            elif part == PARTS.index("batch") + 1:
                return SimpleNamespace(tag=None)
            elif part <= len(PARTS):
                self._ready, self._started = self._started[::-1], []
            else:
                done = self._round_done()
                self.marks.clear()
                return SimpleNamespace(tag=self._stopped if done else None)
        return self._ready.pop()

    def play(self, transport: Any, round_done: Callable[[], bool]) -> None:
        """Let a transport serve on the calling thread until `round_done`, called after each round, says so."""
        self._round_done, self._stopped = round_done, transport._was_shut_down
        transport._stopped = False
        transport._reading._read()


@contextmanager
def played_server(
    played: PlayedGrpc, repository: Path, *, clock: ManualClock | None = None, **settings: Any
) -> Iterator[Any]:
    """The transport of a server that is ready, whose gRPC is played; it goes by a clock that is given."""
    addresses = {"grpc_address": ANY_PORT, "http_address": ANY_PORT}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(completion_queue, "CoreServer", return_value=played))
        if clock is not None:
            stack.enter_context(server_clock(clock, transport=True))
        server = Server(Settings(repository=repository, provider="cpu", **addresses | settings))
        transport: Any = server._transport
        transport._reading._thread = threading.Thread()  # starts and ends; it is played instead
        server.start()
        try:
            yield transport
        finally:
            transport._stopped = True
            server.stop()
