"""Which transport carries the calls."""

import logging
from collections.abc import Callable
from typing import Protocol

from inferry_server.addresses import A
from inferry_server.rpc.router import Router
from inferry_server.transport.aio import AioTransport
from inferry_server.transport.between_events import BetweenEvents
from inferry_server.transport.completion_queue import CompletionQueueTransport
from inferry_server.transport.core_layer import LayerChangedError, check_layer
from inferry_server.transport.options import TransportOptions

logger = logging.getLogger(__name__)


class Transport(Protocol):
    """A gRPC server. `start` and `stop` are called once each, by one thread, and block until done."""

    def start(self, address: A) -> A:
        """Listen; returns the address with the port that was bound, or raises StartError."""
        ...

    def look(self) -> float:
        """Seconds for which it has read no call although it should; asked every quarter of a second, by one thread."""
        ...

    def stop(self, grace_s: float) -> bool:
        """Accept no more calls, let those under way finish, and cancel what is left after `grace_s`."""


def make_transport(
    name: str,
    router: Router,
    options: TransportOptions,
    *,
    inline: BetweenEvents | None = None,
    check: Callable[[], None] = check_layer,
    failed: Callable[[], object] = lambda: None,
    relieved: Callable[[], object] = lambda: None,
) -> Transport:
    """The transport of a name; `aio` where grpcio's private layer is not the one that was tested.

    Args:
        name: `completion_queue` or `aio`.
        router: finds the handlers.
        options: of the connections.
        inline: what the reading thread runs between two events.
        check: raises LayerChangedError.
        relieved: called on any thread when another one reads calls, because the one that did computes for long.
        failed: called on any thread if no call will get a reply any more.
    """
    logging.getLogger(_LAYER_LOGGER).addFilter(_is_not_of_a_caller)  # guard: odd-metadata-log
    if name == "aio":
        return AioTransport(router, options)
    try:
        check()
    except LayerChangedError as changed:
        logger.warning("transport: aio instead of completion_queue, which is faster: %s", changed)
        return AioTransport(router, options)
    return CompletionQueueTransport(router, options, failed, inline=inline, relieved=relieved)


_LAYER_LOGGER = "grpc._cython.cygrpc"


def _is_not_of_a_caller(record: logging.LogRecord) -> bool:
    """Whether a log record of grpcio tells of something else than metadata that are not UTF-8.

    grpcio logs a traceback for every such value and goes on: any caller could fill the log.
    """
    return not str(record.msg).startswith("Invalid encoding on")
