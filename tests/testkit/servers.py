"""Real servers on free ports of the loopback interface, for as long as a test lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inferry_server.addresses import Address
from inferry_server.app import Server
from inferry_server.settings.settings import Settings
from inferry_server.trace import Tracer

FRONT_ENDS = "front_ends"
"""Instead of a transport: a server whose connections one front end holds."""

ANY_PORT = Address("127.0.0.1", 0)


@contextmanager
def running_server(repository: Path, tracer: Tracer | None = None, **settings: Any) -> Iterator[Server]:
    """A server that is ready, with its models; stopped on leaving."""
    defaults: dict[str, Any] = {
        "grpc_address": ANY_PORT, "http_address": ANY_PORT, "provider": "cpu", "drain_timeout_s": 5.0,
    }  # fmt: skip
    if settings.get("transport") == FRONT_ENDS:
        settings |= {"transport": "completion_queue", "front_ends": "1"}
    server = Server(Settings(repository=repository, **defaults | settings), tracer)
    server.start()
    try:
        yield server
    finally:
        server.stop()
