"""A call ends once: with an answer, a refusal, or its client's leaving."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from inferry_server.rpc.router import CallAccount
from inferry_server.rpc.statuses import CANCELLED, Status, status_of

Metadata = Sequence[tuple[str, str | bytes]]

STRAGGLER_S = 0.3
"""How long after its end began a server still takes the request of a unary call that was opened before."""


class EndingCall(ABC):
    """What the calls of every transport share. Thread-safe.

    Args:
        method: the path.
        metadata: as the client sent it.
        deadline: on the monotonic clock, in seconds; None for none.
        account: where the outcome is counted.
        waited_s: before it was read, in seconds.
    """

    def __init__(
        self, method: str, metadata: Metadata, deadline: float | None, account: CallAccount, waited_s: float = 0.0
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.deadline = deadline
        self.waited_s = waited_s
        self.trace = account.trace
        self._account = account
        self._lock = threading.Lock()
        self._ended = False
        self._cancelled = False
        self._on_cancel: Callable[[], object] | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended; if not, it may the next moment."""
        return self._ended

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """As `Call.on_cancel`."""
        with self._lock:
            if not self._ended:  # else it would only keep what it closes over, and that keeps the call
                self._on_cancel = callback
            call_now = self._cancelled  # guard: cancellation-told-asks
        if call_now:
            callback()

    def cancelled(self, status: Status = CANCELLED) -> None:
        """Nobody wants the answer any more: the client went away, or gRPC has told it why there is none."""
        with self._lock:
            self._cancelled = True
            callback = self._on_cancel
        if self._end(status) and callback is not None:
            callback()

    @abstractmethod
    def abort(self, status: Status) -> None:
        """As `Call.abort`."""

    def fail(self, error: Exception) -> None:
        """As `Outcome.fail`."""
        self.abort(status_of(error))

    def _end(self, status: Status) -> bool:
        """Whether this is the first end of the call, and so the one that counts."""
        with self._lock:
            if self._ended:  # guard: accounts-outcome-each
                return False
            self._ended = True
            self._on_cancel = None
        self._account.ended(status)
        return True
