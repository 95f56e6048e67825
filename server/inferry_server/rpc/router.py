"""Which handler answers which method, and the account of every call: opened as it arrives, closed by its first end."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from inferry_server.errors import ServingError
from inferry_server.rpc.call import (
    AlikeHandler,
    Arrived,
    Call,
    Message,
    StreamCall,
    StreamHandler,
    StreamReceiver,
    UnaryHandler,
)
from inferry_server.rpc.compiling import mypyc_attr
from inferry_server.rpc.receivers import Deaf, GuardedReceiver, end_with
from inferry_server.rpc.statuses import CANCELLED, Status, status_of
from inferry_server.security.access import Access, Names
from inferry_server.security.certificate_names import AuthContext
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.series import MethodSeries
from inferry_server.trace import Metadata, NoTracer, RequestTrace, Tracer

UNKNOWN_METHOD = "unknown"
"""What calls of methods that do not exist are counted under: their names are the caller's invention."""


class Account(Protocol):
    """What is told once how a call ended.

    Attributes:
        trace: for the handler; None where the call is not sampled.
    """

    @property
    def trace(self) -> RequestTrace | None:
        """As the attribute says."""

    def ended(self, status: Status) -> None:
        """The call has ended so."""


class CallAccount:
    """The metrics and the trace of one call: a transport says once how it ended.

    Attributes:
        trace: for the handler; None where the call is not sampled.
    """

    __slots__ = ("_clock", "_metrics", "_started", "trace")

    def __init__(self, metrics: MethodSeries, trace: RequestTrace | None, clock: Callable[[], float]) -> None:
        self.trace = trace
        self._metrics = metrics
        self._clock = clock
        self._started = clock()

    def ended(self, status: Status) -> None:
        """Count the outcome, and end the trace."""
        self._metrics.ended(code=status.code_name, reason=status.reason, seconds=self._clock() - self._started)
        if self.trace is not None:
            self.trace.ended(code=status.code.value[0], reason=status.reason)


@mypyc_attr(allow_interpreted_subclasses=True)  # of REST, of asyncio and of tests
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
        self, method: str, metadata: Metadata, deadline: float | None, account: Account, waited_s: float = 0.0
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.deadline = deadline
        self.waited_s = waited_s
        self.trace = account.trace
        self.account = account
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
        """Nobody wants the reply any more: the client went away, or gRPC has told it why there is none."""
        with self._lock:
            self._cancelled = True
            callback = self._on_cancel
        if self._end(status) and callback is not None:
            callback()

    def revoke(self, status: Status) -> None:
        """The caller may not make the call any more: end it so, and forget what it waits for."""
        with self._lock:
            callback, self._on_cancel = self._on_cancel, None
        self.abort(status)
        if callback is not None:
            callback()  # guard: revoked-forgotten

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
        self.account.ended(status)
        return True


class Router:
    """The methods of every service. Transports look handlers up here and call them through it.

    Args:
        metrics: where every call is counted.
        tracer: asked which calls to trace.
        check: raises an error for a message that no handler should see, given the method's path.
        unchecked_bytes: messages that are not longer need no check.
        access: decides who may call.
        clock: monotonic seconds.

    Attributes:
        access: decides who may call; None: everybody may.
        together: the methods of which calls that came together may go to `handle_alike`, and up to how many bytes their
            requests may have for that.
    """

    def __init__(
        self,
        metrics: ServerMetrics,
        tracer: Tracer | None = None,
        *,
        check: Callable[[str, Message], None] = lambda *_: None,
        unchecked_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
        access: Access | None = None,
    ) -> None:
        self.access = access
        self._check = check
        self._unchecked = unchecked_bytes
        self._metrics = metrics
        self._tracer = None if isinstance(tracer, NoTracer) else tracer
        self._clock = clock
        self._traced: set[str] = set()
        self._views: set[str] = set()
        self._sheddable: dict[str, Callable[[], bool]] = {}
        self._unary: dict[str, UnaryHandler] = {}
        self._alike: dict[str, AlikeHandler] = {}
        self.together: dict[str, int] = {}
        self._stream: dict[str, StreamHandler] = {}
        self._methods: dict[str, MethodSeries] = {}

    def add_unary(
        self,
        handlers: Mapping[str, UnaryHandler],
        *,
        traced: bool = True,
        sheddable: Callable[[], bool] | None = None,
        views: bool = False,
    ) -> None:
        """Register handlers by path.

        Args:
            handlers: of unary calls.
            traced: ask the tracer for each call whether to trace it.
            views: whether they take messages that are views (`Message`).
            sheddable: whether their calls can be meant for one model only now, so that they may be refused unread
                while that sheds; None: never.
        """
        if traced:
            self._traced |= handlers.keys()
        if sheddable is not None:
            self._sheddable |= dict.fromkeys(handlers, sheddable)
        if views:
            self._views |= handlers.keys()
        self._unary |= handlers

    def add_streams(self, handlers: Mapping[str, StreamHandler], *, views: bool = False) -> None:
        """Register handlers by path. A stream has no trace, its requests have.

        Args:
            handlers: of streaming calls.
            views: whether their receivers take messages that are views (`Message`).
        """
        if views:
            self._views |= handlers.keys()
        self._stream |= handlers

    def add_alike(self, handlers: Mapping[str, AlikeHandler]) -> None:
        """Register by path what handles unary calls that came together; each has a handler of single calls too."""
        self._alike |= handlers
        self.together |= dict.fromkeys(handlers, self._unchecked)

    def unary_paths(self) -> Sequence[str]:
        """The methods that unary handlers answer."""
        return tuple(self._unary)

    def stream_paths(self) -> Sequence[str]:
        """The methods that streaming handlers answer."""
        return tuple(self._stream)

    def sheddable_paths(self) -> Sequence[str]:
        """The methods whose calls may be refused unread at times."""
        return tuple(self._sheddable)

    def is_unary(self, path: str) -> bool:
        """Whether a unary handler answers this path."""
        return path in self._unary

    def is_sheddable(self, path: str) -> bool:
        """Whether its calls may be refused unread now."""
        sheddable = self._sheddable.get(path)
        return sheddable is not None and sheddable()

    def takes_views(self, path: str) -> bool:
        """Whether its handler takes messages that are views."""
        return path in self._views

    def is_stream(self, path: str) -> bool:
        """Whether a streaming handler answers this path."""
        return path in self._stream

    def unary_in_flight(self) -> int:
        """Unary calls that have arrived and not ended."""
        return sum(metrics.in_flight for path, metrics in list(self._methods.items()) if path in self._unary)

    def received(self, path: str, metadata: Metadata) -> Account:
        """Open the account of a call that has just arrived."""
        metrics = self._methods.get(path) or self._method(path)
        metrics.received()
        trace = self._tracer.begin(path, metadata) if self._tracer is not None and path in self._traced else None
        return CallAccount(metrics, trace, self._clock)

    def refuses(self, path: str, metadata: Metadata, names: Names) -> Status | None:
        """The status for a caller that may not call this method, counted; None where it may.

        Transports ask before they read the request.
        """
        if self.access is None:
            return None
        try:
            self.access.check(path, metadata, names)  # guard: access-checked
        except ServingError as error:
            return self.refused(path, error)
        return None

    def refused(self, path: str, error: ServingError) -> Status:
        """The status for a call that is refused for this error as it arrives; it is counted."""
        status = status_of(error)
        self.shed(path, status)
        return status

    def refuses_connection(
        self, path: str, certificates: ClientCertificates, auth_context: AuthContext, peer: bytes
    ) -> Status | None:
        """The status for a call on a connection whose client's certificate holds no more, counted; None for others."""
        try:
            certificates.check(auth_context, peer)
        except ServingError as error:
            return self.refused(path, error)
        return None

    def refuses_still(self, path: str, metadata: Metadata, names: Names) -> Status | None:
        """As `refuses`, of a call that was let in; it is counted when it ends."""
        if self.access is None:
            return None
        try:
            self.access.check(path, metadata, names, again=True)
        except ServingError as error:
            return status_of(error)
        return None

    def shed(self, path: str, status: Status) -> None:
        """Count a call that is refused as it arrives; it has no trace."""
        self.counted(path, status.code_name, status.reason, 0.0)

    def counted(self, path: str, code: str, reason: str, seconds: float) -> None:
        """Count a call of which nothing is told but how it ended.

        Args:
            path: of its method.
            code: name of its status.
            reason: the kind of error; empty where there was none.
            seconds: that it took.
        """
        metrics = self._method(path)
        metrics.received()
        metrics.ended(code=code, reason=reason, seconds=seconds)

    def reply_given_up(self) -> None:
        """Count a reply whose client has not read it in time; its call was counted as it was made."""
        self._metrics.replies_unread.labels().inc()

    def cut_off(self, count: int) -> None:
        """Count connections that were cut off because their peers had too many."""
        self._metrics.connections_closed.labels("peer").inc(count)

    def tls_connections(self, accepted: int, used: int) -> None:
        """Count connections over TLS.

        Args:
            accepted: whose handshakes have begun.
            used: that had their first call.
        """
        self._metrics.tls_connections.labels("accepted").inc(accepted)
        self._metrics.tls_connections.labels("used").inc(used)

    def handle(self, call: Call, message: Message) -> None:
        """Give a unary call to its handler; what the handler raises becomes the call's status."""
        try:
            if message[self._unchecked : self._unchecked + 1]:  # it is longer; `len` would be a call more a request
                self._check(call.method, message)  # guard: fields-unary
            cancel = self._unary[call.method](call, message)
            if cancel is not None:
                call.on_cancel(cancel)
        except Exception as error:  # noqa: BLE001 - no error may leave a call without a reply
            end_with(call, error)

    def handle_alike(self, arrived: Sequence[Arrived]) -> None:
        """As `handle`, calls of one method that came together, with requests no longer than `together` says."""
        if len(arrived) == 1:
            self.handle(*arrived[0])
            return
        try:
            self._alike[arrived[0][0].method](arrived)
        except Exception as error:  # noqa: BLE001 - as in `handle`
            for call, _ in arrived:
                end_with(call, error)

    def _method(self, path: str) -> MethodSeries:
        metrics = self._methods.get(path)
        if metrics is None:
            metrics = self._metrics.for_method(path, streaming=self.is_stream(path))
            metrics = self._methods.setdefault(path, metrics)
        return metrics

    def open(self, call: StreamCall) -> StreamReceiver:
        """Give a streaming call to its handler; what the handler raises becomes the call's status."""
        try:
            return GuardedReceiver(call, self._stream[call.method](call), self._check)
        except Exception as error:  # noqa: BLE001 - as in `handle`
            end_with(call, error)
            return Deaf()
