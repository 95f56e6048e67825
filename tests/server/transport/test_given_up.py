"""Streams that are given up, where threads of gRPC read the connections: in a Python that has made no other choice."""

import os
import subprocess
import sys

STREAMS = 400  # 3 in 100 were taken for half-closed when the end of a stream was read once

GIVE_UP = """
import sys, threading
import grpc
from inferry_server.addresses import Address
from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import make_transport

class Echo:
    def __init__(self, call):
        self.call = call
    def on_message(self, message):
        self.call.send(message)
    def on_half_close(self):
        self.call.finish()
        half_closed.append(self.call)
    def on_drain(self):
        self.call.finish()

half_closed, cancelled = [], threading.Semaphore(0)
def echoes(call):
    call.on_cancel(cancelled.release)
    return Echo(call)

router = Router(ServerMetrics())
router.add_streams({"/test/Echoes": echoes})
transport = make_transport("completion_queue", router, TransportOptions(max_message_bytes=1000, max_streams=100))
address = str(transport.start(Address("127.0.0.1", 0)))
ended = threading.Event()

def requests():
    yield b"first"
    ended.wait()

told = 0
for _ in range(int(sys.argv[1])):
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        answers = channel.stream_stream("/test/Echoes")(requests())
        assert next(answers) == b"first"
        answers.cancel()
        if not cancelled.acquire(timeout=20):
            break
        told += 1
ended.set()
transport.stop(1.0)
print(told, "cancelled", len(half_closed), "half-closed")
"""


def test_streams_that_are_given_up_are_never_taken_for_half_closed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVE_UP, str(STREAMS)],
        env={name: value for name, value in os.environ.items() if not name.startswith("GRPC_")},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.split() == [str(STREAMS), "cancelled", "0", "half-closed"]
