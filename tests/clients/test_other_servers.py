"""The client with other servers of the Open Inference Protocol.

Each is installed in an environment of its own: $INFERRY_PEERS names a folder with `mlserver`, `kserve` and
`nvidia-pytriton` (NumPy below 2), each an environment with the PyPI package of that name.
"""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferry_client import AsyncClient, Batching, Client, errors
from inferry_client.cli import main

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Peer:
    """A server: its environment, what starts it, and what it has."""

    name: str
    program: str
    describes: bool = True
    limit: int | None = None


PEERS = (
    Peer("mlserver", "mlserver_double.py"),
    Peer("kserve", "kserve_double.py", describes=False),
    Peer("nvidia-pytriton", "triton_double.py", limit=16),
)


@contextmanager
def served(peer: Peer, folder: Path) -> Iterator[str]:
    python = Path(os.environ.get("INFERRY_PEERS", "/nonexistent")) / peer.name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{peer.name} is not installed: no {python}; set INFERRY_PEERS (see the head of this file)")
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (one, two, three)]
    command = [python, Path(__file__).parent / "peers" / peer.program, *ports, folder]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, start_new_session=True)
        try:
            yield f"127.0.0.1:{ports[0]}"
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)


def rows(count: int, value: int = 1) -> dict[str, Any]:
    return {"x": np.full((count, 1), value, np.int64)}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_another_server_of_the_protocol_is_spoken_to(
    peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ask(address: str) -> None:
        async with AsyncClient(address) as client:
            items = [rows(1, number) for number in range(20)]
            streamed = [result.outputs["y"].item() async for result in client.stream("double", items)]
            assert streamed == list(range(0, 40, 2))
        async with AsyncClient(address, batching=Batching()) as client:
            joined = await asyncio.gather(*(client.infer("double", rows(1, number)) for number in range(40)))
            assert [result.outputs["y"].item() for result in joined] == list(range(0, 80, 2))

    with served(peer, tmp_path) as address, Client(address) as client:
        client.wait_until_ready("double", timeout_s=90)
        assert client.live()
        assert client.server_metadata().name
        assert client.infer("double", rows(3, 4), request_id="mine").outputs["y"].ravel().tolist() == [8, 8, 8]
        assert client.infer("double", rows(40, 5)).outputs["y"].ravel().tolist() == [10] * 40
        results = client.stream("double", (rows(1, number) for number in range(20)), window=5)
        assert [result.outputs["y"].item() for result in results] == list(range(0, 40, 2))
        with pytest.raises(errors.ModelNotFoundError, match="cats"):
            client.infer("cats", rows(1))
        with pytest.raises(errors.UnsupportedError, match="classify"):
            client.classify("double", b"no picture")
        asyncio.run(ask(address))
        if peer.describes:
            metadata = client.model_metadata("double")
            assert [(spec.name, spec.shape) for spec in metadata.inputs] == [("x", (-1, 1))]
            assert [model.name for model in client.models() if model.ready] == ["double"]
            main(["load", "--server", address, "--rate", "20", "--duration", "2s"])  # 1 where the client was late
            assert " requests, 0 failures, " in capsys.readouterr().out
        else:
            assert main(["load", "--server", address, "--model", "double", "--rate", "20", "--duration", "1s"]) == 1
            assert "states no outputs" in capsys.readouterr().err
