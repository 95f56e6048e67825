"""What clients do when their process forks."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from inferry_client import AsyncClient, Client, TensorSpec, errors
from inferry_client.connecting import forks
from inferry_client.testing import FakeModel, fake_server
from testkit.waiting import SOON_S

SPECS = (TensorSpec("x", "INT64", (-1, 1)),)

# A process of its own, since pytest's has servers, whose threads are inside gRPC.
FORKING = """
import multiprocessing, sys, threading
import numpy as np
from inferry_client import Batching, Client

address, forks, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
clients = [Client(address), Client(address, batching=Batching())]
ended = threading.Event()

def ask(client, value):
    answer = client.infer("m", {"x": np.full((1, 1), value, np.int64)}).outputs["y"].item()
    assert answer == 2 * value, answer

def ask_on(number):
    while not ended.is_set():
        ask(clients[number % 2], number)

def child():
    for client in (*clients, Client(address)):  # its parent's, and one of its own
        ask(client, 4)

for client in clients:
    ask(client, 1)
asking = [threading.Thread(target=ask_on, args=(number,)) for number in range(threads)]
for thread in asking:
    thread.start()
for _ in range(forks):
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.exitcode
ended.set()
for thread in asking:
    thread.join()
for client in clients:
    ask(client, 2)
    client.close()
"""


def _doubling() -> FakeModel:
    return FakeModel(infer=lambda inputs: {"y": inputs["x"] * 2}, inputs=SPECS, outputs=SPECS, max_batch_size=8)


AWAITING = """
import asyncio, os, sys
import numpy as np
from inferry_client import AsyncClient, Client, errors

address, closed = sys.argv[1], sys.argv[2] == "closed"

def child():
    one = {"x": np.ones((1, 1), np.int64)}

    async def ask():
        async with AsyncClient(address) as client:
            return await client.infer("m", one)

    if closed:
        asyncio.run(ask())
    else:
        try:
            asyncio.run(ask())
        except errors.InvalidRequestError as error:
            assert "forked while gRPC's asyncio was in use" in str(error)
    with Client(address) as client:
        client.infer("m", one)

async def parent():
    client = AsyncClient(address)
    assert await client.ready()
    if closed:
        await client.close()
        return 0
    status = fork()
    assert await client.ready()
    await client.close()
    return status

def fork():
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    asyncio.events._set_running_loop(None)  # that of the parent, on whose thread the child goes on
    try:
        child()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

status = asyncio.run(parent())
sys.exit(int(bool(fork() if closed else status)))
"""


@pytest.mark.parametrize("threads", [0, 4])
def test_clients_work_on_in_the_child_of_a_fork_and_in_its_parent(threads: int) -> None:
    with fake_server({"m": _doubling()}) as server:
        command = [sys.executable, "-c", FORKING, server.address, "2", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * SOON_S, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("state", ["open", "closed"])
def test_an_async_client_says_what_a_fork_took_from_it_while_another_client_works(state: str) -> None:
    with fake_server({"m": _doubling()}) as server:
        command = [sys.executable, "-c", AWAITING, server.address, state]
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * SOON_S, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_that_is_sent_to_another_process_says_what_to_do_instead(kind: type) -> None:
    with pytest.raises(TypeError, match=f"a {kind.__name__} cannot be pickled.* make a client there"):
        pickle.dumps(kind("127.0.0.1:1"))


def test_no_call_begins_while_the_process_forks() -> None:
    one = {"x": np.ones((1, 1), np.int64)}
    with fake_server({"m": _doubling()}) as server, Client(server.address) as client, ThreadPoolExecutor(1) as pool:
        client.infer("m", one)
        forks._before()
        try:
            with pytest.raises(TimeoutError):
                pool.submit(client.infer, "m", one).result(0.05)
            assert len(server.requests("ModelInfer")) == 1
        finally:
            forks._in_parent()
        assert pool.submit(client.infer, "m", one).result(SOON_S).outputs["y"].item() == 2
        assert len(server.requests("ModelInfer")) == 3


def test_a_child_holds_no_lock_and_no_connection_of_its_parent_and_a_closed_client_stays_closed() -> None:
    with fake_server({"m": _doubling()}) as server:
        client, closed, awaited = Client(server.address), Client(server.address), AsyncClient(server.address)
        assert client.ready()
        closed.close()
        channels = client._channels
        client._opening.acquire()  # as a thread of the parent may have at the time of the fork
        client._learning.acquire()
        for each in (client, closed, awaited):
            each._before_fork()
            each._in_child()
        assert client.ready()
        assert client._channels[0][0] is not channels[0][0]
        with pytest.raises(errors.RequestCancelledError):
            closed.ready()
        client.close()
        channels[0][0].close()
