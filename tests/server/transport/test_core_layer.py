"""grpcio's private layer is looked at before it is used, and a server without it has a way back."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from grpc._cython import cygrpc

from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport import core_layer
from inferry_server.transport.aio import AioTransport
from inferry_server.transport.completion_queue import CompletionQueueTransport
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import make_transport


def test_the_layer_of_this_grpcio_is_the_one_we_know() -> None:
    core_layer.check_layer()


@pytest.mark.parametrize("piece", ["CompletionQueue", "ReceiveCloseOnServerOperation", "CompletionType"])
def test_a_layer_without_a_piece_is_refused_by_name(piece: str) -> None:
    names = {name: getattr(cygrpc, name) for name in dir(cygrpc) if name != piece}
    with pytest.raises(core_layer.LayerChangedError, match=f"cygrpc.{piece} is missing"):
        core_layer.check_layer(SimpleNamespace(**names))


def test_a_layer_that_behaves_in_another_way_is_refused() -> None:
    class Deaf(cygrpc.Server):  # type: ignore[misc]
        def request_call(self, *arguments: Any) -> None:
            raise TypeError("takes a batch now")

    names = {name: getattr(cygrpc, name) for name in dir(cygrpc)} | {"Server": Deaf}
    with pytest.raises(core_layer.LayerChangedError, match="takes a batch now"):
        core_layer.check_layer(SimpleNamespace(**names))


def test_a_changed_layer_falls_back_to_aio_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def changed() -> None:
        raise core_layer.LayerChangedError("grpc._cython.cygrpc.Server is missing")

    options = TransportOptions(max_message_bytes=1000, max_streams=100)
    with caplog.at_level(logging.WARNING):
        chosen = make_transport("completion_queue", Router(ServerMetrics()), options, check=changed)
    assert isinstance(chosen, AioTransport)
    assert "aio instead of completion_queue" in caplog.text
    assert "cygrpc.Server is missing" in caplog.text
    assert isinstance(make_transport("completion_queue", Router(ServerMetrics()), options), CompletionQueueTransport)
