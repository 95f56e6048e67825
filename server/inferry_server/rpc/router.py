"""Which handler answers which method, and the account of every call."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc

from inferry_server.errors import ServingError
from inferry_server.metrics import ServerMetrics
from inferry_server.rpc.call import Call, StreamCall, StreamHandler, StreamReceiver, UnaryHandler, fail

logger = logging.getLogger(__name__)

UNKNOWN_METHOD = "unknown"
"""What calls of methods that do not exist are counted under: their names are the caller's invention."""


@dataclass(frozen=True)
class CallAccount:
    """The metrics of one call: a transport says once how it ended."""

    metrics: ServerMetrics
    method: str
    started: float
    clock: Callable[[], float]

    def ended(self, code: grpc.StatusCode) -> None:
        """Count the outcome."""
        self.metrics.outcomes.labels(self.method, code.name).inc()
        self.metrics.duration.labels(self.method).observe(self.clock() - self.started)


class Router:
    """The methods of every service. Transports look handlers up here and call them through it."""

    def __init__(self, metrics: ServerMetrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._unary: dict[str, UnaryHandler] = {}
        self._stream: dict[str, StreamHandler] = {}

    def add_unary(self, handlers: Mapping[str, UnaryHandler]) -> None:
        """Register handlers by path."""
        self._unary |= handlers

    def add_streams(self, handlers: Mapping[str, StreamHandler]) -> None:
        """Register handlers by path."""
        self._stream |= handlers

    def is_unary(self, path: str) -> bool:
        """Whether a unary handler answers this path."""
        return path in self._unary

    def is_stream(self, path: str) -> bool:
        """Whether a streaming handler answers this path."""
        return path in self._stream

    def received(self, path: str) -> CallAccount:
        """Open the account of a call that has just arrived."""
        self._metrics.received.labels(path).inc()
        return CallAccount(self._metrics, path, self._clock(), self._clock)

    def handle(self, call: Call, message: bytes) -> None:
        """Give a unary call to its handler; what the handler raises becomes the call's status."""
        try:
            self._unary[call.method](call, message)
        except Exception as error:  # noqa: BLE001 - no error may leave a call without an answer
            _fail(call, error)

    def open(self, call: StreamCall) -> StreamReceiver:
        """Give a streaming call to its handler."""
        return _GuardedReceiver(call, self._stream[call.method](call))


@dataclass(frozen=True)
class _GuardedReceiver:
    """A receiver whose errors become the call's status."""

    call: StreamCall
    receiver: StreamReceiver

    def on_message(self, message: bytes) -> None:
        try:
            self.receiver.on_message(message)
        except Exception as error:  # noqa: BLE001 - as in `handle`
            _fail(self.call, error)

    def on_half_close(self) -> None:
        try:
            self.receiver.on_half_close()
        except Exception as error:  # noqa: BLE001 - as in `handle`
            _fail(self.call, error)

    def on_drain(self) -> None:
        try:
            self.receiver.on_drain()
        except Exception as error:  # noqa: BLE001 - as in `handle`
            _fail(self.call, error)


def _fail(call: Call | StreamCall, error: Exception) -> None:
    if not isinstance(error, ServingError):
        logger.error("unexpected error in %s", call.method, exc_info=error)
    fail(call, error)
