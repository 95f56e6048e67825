"""gRPC is told before it is imported, so each test has a Python of its own."""

import os
import subprocess
import sys

import pytest

from testkit.waiting import SOON_S

WHO_READS = """
import socket, sys, time
from inferry_server.transport import environment
assert "grpc" not in sys.modules
environment.prepare(transport=sys.argv[1], verbose=False)
from inferry_server.transport.core_layer import CoreServer
server = CoreServer([])
port = server.listen("127.0.0.1:0", None)
server.start()
with socket.create_connection(("127.0.0.1", port), timeout=float(sys.argv[2])) as client:
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


def who_reads(transport: str, *, unpolled_s: float, **variables: str) -> str:
    """Who reads the connections of a server that nobody polls for so long."""
    done = subprocess.run(
        [sys.executable, "-c", WHO_READS, transport, str(unpolled_s)],
        env={name: value for name, value in os.environ.items() if not name.startswith("GRPC_")} | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("transport", "reader", "unpolled_s"), [("completion_queue", "who polls", 0.2), ("aio", "gRPC", SOON_S)]
)
def test_connections_are_read_by_the_thread_that_polls_where_it_is_ours(
    transport: str, reader: str, unpolled_s: float
) -> None:
    assert who_reads(transport, unpolled_s=unpolled_s) == reader


def test_a_choice_of_the_users_stands() -> None:
    assert who_reads("completion_queue", unpolled_s=SOON_S, GRPC_EXPERIMENTS="event_engine_listener") == "gRPC"
