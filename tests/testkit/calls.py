"""Calls without a transport: what a handler did with them can be looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inferry_server.rpc.statuses import OK, Status, status_of
from inferry_server.trace import RequestTrace


@dataclass
class FakeCall:
    """A unary or streaming call that records its answers; `cancel` plays the client that goes away."""

    method: str = "/test/Method"
    metadata: Sequence[tuple[str, str | bytes]] = ()
    deadline: float | None = None
    waited_s: float = 0.0
    trace: RequestTrace | None = None
    messages: list[bytes] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    callbacks: list[Callable[[], object]] = field(default_factory=list)
    paused: bool = False

    def reply(self, message: bytes) -> None:
        self.messages.append(message)
        self.statuses.append(OK)

    def send(self, message: bytes) -> None:
        self.messages.append(message)

    def finish(self) -> None:
        self.statuses.append(OK)

    def abort(self, status: Status) -> None:
        self.statuses.append(status)

    def fail(self, error: Exception) -> None:
        self.abort(status_of(error))

    def on_cancel(self, callback: Callable[[], object]) -> None:
        self.callbacks.append(callback)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        for callback in self.callbacks:
            callback()
