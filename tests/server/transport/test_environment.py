"""gRPC is told before it is imported, so each test has a Python of its own."""

import os
import subprocess
import sys

import pytest

WHO_READS = """
import socket, sys, time
from inferry_server.transport import environment
assert "grpc" not in sys.modules
environment.prepare(transport=sys.argv[1], verbose=False)
from inferry_server.transport.core_layer import CoreServer
server = CoreServer([])
port = server.listen("127.0.0.1:0", None)
server.start()
with socket.create_connection(("127.0.0.1", port), timeout=0.2) as client:
    client.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    try:
        who = "gRPC" if client.recv(9) else "nobody"
    except TimeoutError:
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            server.poll(0.0)
            try:
                client.settimeout(0.01)
                who = "who polls" if client.recv(9) else "nobody"
                break
            except TimeoutError:
                pass
print(who)
"""


def who_reads(transport: str, **variables: str) -> str:
    """Who reads the connections of a server that nobody polls at first."""
    done = subprocess.run(
        [sys.executable, "-c", WHO_READS, transport],
        env={name: value for name, value in os.environ.items() if not name.startswith("GRPC_")} | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("transport", "reader"), [("completion_queue", "who polls"), ("aio", "gRPC")])
def test_connections_are_read_by_the_thread_that_polls_where_it_is_ours(transport: str, reader: str) -> None:
    assert who_reads(transport) == reader


def test_a_choice_of_the_users_stands() -> None:
    assert who_reads("completion_queue", GRPC_EXPERIMENTS="event_engine_listener") == "gRPC"
