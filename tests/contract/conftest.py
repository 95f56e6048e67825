from collections.abc import Iterator
from pathlib import Path
from typing import cast

import grpc
import pytest

from inferry_server.app import Server
from testkit import onnx_models
from testkit.servers import running_server
from testkit.transports import ALL_TRANSPORTS


@pytest.fixture(scope="module", params=ALL_TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Everything that the protocol promises holds over every transport, and through front ends."""
    return cast("str", request.param)


@pytest.fixture
def server(tmp_path: Path, transport: str) -> Iterator[Server]:
    """A server with two models, `brightness` and `doubler`, and one that did not load, `broken`."""
    onnx_models.save_brightness(tmp_path)
    onnx_models.save_doubler(tmp_path)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with running_server(tmp_path, transport=transport) as running:
        yield running


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    """To that server."""
    with grpc.insecure_channel(str(server.grpc_address)) as opened:
        yield opened
