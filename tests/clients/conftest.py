import socket
from collections.abc import Iterator

import pytest

from testkit import brightness_model
from testkit.scripted_server import ScriptedServer, serving


@pytest.fixture
def unused_address() -> Iterator[str]:
    """An address of loopback that refuses connections: bound, so that nobody else takes it, not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address of loopback that accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def brightness_server() -> Iterator[ScriptedServer]:
    """A server with the one model `brightness`."""
    with serving(brightness_model.scripts()) as scripted:
        yield scripted
