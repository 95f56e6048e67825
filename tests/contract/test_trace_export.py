"""Traces on their way to a collector, which may be away, and a server that cannot make them."""

import logging
import queue
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from inferry_server.app import Server
from inferry_server.errors import StartError
from inferry_server.settings.settings import Settings
from testkit import onnx_models
from testkit.rpc import call, infer_request
from testkit.servers import running_server


@contextmanager
def collector() -> Iterator[tuple[str, "queue.Queue[ExportTraceServiceRequest]"]]:
    """A collector on loopback: its endpoint, and what it gets."""
    received: queue.Queue[ExportTraceServiceRequest] = queue.Queue()

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        received.put(ExportTraceServiceRequest.FromString(request))
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(1))
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        server.stop(grace=None).wait()


def ask(repository: Path, times: int, **settings: Any) -> None:
    """Serve, answer some requests, stop."""
    request = infer_request("picky", index=np.array([1]))
    with running_server(repository, **settings) as server, grpc.insecure_channel(str(server.grpc_address)) as channel:
        for _ in range(times):
            call(channel, "ModelInfer", request)


def test_spans_reach_the_collector_before_the_server_has_stopped(tmp_path: Path) -> None:
    onnx_models.save_picky(tmp_path)
    with collector() as (endpoint, received):
        ask(tmp_path, 3, trace_endpoint=endpoint, trace_sample_ratio=1.0)
        exports = [received.get_nowait() for _ in range(received.qsize())]
    (resources,) = {
        attribute.value.string_value
        for export in exports
        for spans in export.resource_spans
        for attribute in spans.resource.attributes
        if attribute.key == "service.name"
    }
    assert resources == "inferry"
    names = [
        span.name
        for export in exports
        for spans in export.resource_spans
        for scope in spans.scope_spans
        for span in scope.spans
    ]
    assert names.count("inference.GRPCInferenceService/ModelInfer") == names.count("batch") == names.count("queue") == 3


def test_a_collector_that_is_away_costs_a_line_or_two_and_no_reply(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_models.save_picky(tmp_path)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")  # so that most have no room
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    with collector() as (endpoint, _):
        pass  # it is gone again
    with caplog.at_level(logging.INFO):
        ask(tmp_path, 40, trace_endpoint=endpoint, trace_sample_ratio=1.0)
    lines = [record.getMessage() for record in caplog.records if "trac" in record.getMessage()]
    assert 1 <= len(lines) <= 2, lines
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_traces_without_the_extra_are_a_start_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "inferry_server.telemetry.tracing")
    for module in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(StartError, match=r"opentelemetry.* is not installed.*'\.\[server,tracing\]'"):
        Server(Settings(repository=tmp_path, trace_endpoint="http://127.0.0.1:4317"))
    Server(Settings(repository=tmp_path))
