"""What a real server tells of itself: health, reflection, its methods, and that it goes away."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.app import Server
from inferry_server.lifecycle import Phase
from testkit import onnx_models
from testkit.metrics_page import Metrics, wait_for_metrics
from testkit.rpc import call_raw, check_health
from testkit.servers import running_server

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
SPARE_THREADS = 8  # of gRPC's own pools, which grow by a few with the machine's load


def test_health_is_told_for_the_server_the_process_and_each_model(server: Server, channel: grpc.Channel) -> None:
    ready = ("", "liveness", "inference.GRPCInferenceService", "inferry.v1.ImageClassifier", "brightness", "doubler")
    assert [check_health(channel, service) for service in ready] == [SERVING] * len(ready)
    assert check_health(channel, "broken") == NOT_SERVING
    with pytest.raises(grpc.RpcError) as error:
        check_health(channel, "nothing")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    server.readiness.enter(Phase.DRAINING)
    assert check_health(channel, "") == check_health(channel, "brightness") == NOT_SERVING
    assert check_health(channel, "liveness") == SERVING  # a pod that drains must not be killed


def test_watchers_hear_the_state_at_once_and_then_every_change(server: Server, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    watches = {name: health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "doubler", "nothing")}
    assert [next(watch).status for watch in watches.values()] == [SERVING, SERVING, SERVICE_UNKNOWN]
    server.readiness.enter(Phase.DRAINING)
    assert next(watches[""]).status == next(watches["doubler"]).status == NOT_SERVING
    for watch in watches.values():
        watch.cancel()


def test_a_thousand_watchers_cost_no_thread_and_all_hear_a_change(server: Server) -> None:
    request = health_pb2.HealthCheckRequest()

    async def watch_all() -> None:
        async with grpc.aio.insecure_channel(str(server.grpc_address)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            first = stub.Watch(request, timeout=60)
            assert (await first.read()).status == SERVING
            threads = psutil.Process().num_threads()
            watches = [first, *(stub.Watch(request, timeout=60) for _ in range(999))]
            assert {(await watch.read()).status for watch in watches[1:]} == {SERVING}
            assert psutil.Process().num_threads() <= threads + SPARE_THREADS
            server.readiness.enter(Phase.DRAINING)
            assert {(await watch.read()).status for watch in watches} == {NOT_SERVING}

    asyncio.run(watch_all())


def test_a_server_that_stops_does_not_wait_for_its_watchers(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    with ExitStack() as stack:
        with running_server(tmp_path, drain_timeout_s=60.0, transport=transport) as running:
            channel = stack.enter_context(grpc.insecure_channel(str(running.grpc_address)))
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
            assert next(watch).status == SERVING
        assert [answer.status for answer in watch] == [NOT_SERVING]  # and not an error


def has_received(path: str, metrics: Metrics) -> bool:
    """Whether a call has arrived that answers nothing by itself."""
    return any(path in name and "received" in name for name in metrics)


def test_a_server_that_stops_ends_idle_streams_and_says_why(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    ask: queue.Queue[bytes | None] = queue.Queue()
    with ExitStack() as stack:
        with running_server(tmp_path, drain_timeout_s=60.0, transport=transport) as running:
            channel = stack.enter_context(grpc.insecure_channel(str(running.grpc_address)))
            stubs: list[grpc.StreamStreamMultiCallable[bytes, bytes]] = [
                channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
                channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer"),
            ]
            streams = [stub(iter(ask.get, None), timeout=60) for stub in stubs]
            for path in ("v1.ServerReflection/ServerReflectionInfo", "ModelStreamInfer"):
                wait_for_metrics(running, partial(has_received, path), f"a call of {path}")
        for stream in streams:
            with pytest.raises(grpc.RpcError, match="shutting down"):
                next(stream)
    ask.put(None)
    ask.put(None)


def test_a_client_that_does_not_read_is_not_read_either(channel: grpc.Channel) -> None:
    sent = 0
    stalled = threading.Event()
    request = reflection_pb2.ServerReflectionRequest(
        host="h" * 4096, file_containing_symbol="inference.ModelInferRequest"
    ).SerializeToString()  # long: buffers are full after a few thousand

    def requests() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100_000):
            sent += 1
            yield request

    stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    )
    stream = stub(requests(), timeout=60)
    before = -1
    while sent == 0 or before < sent:
        before = sent
        stalled.wait(0.5)
    assert 0 < sent < 90_000  # the rest is held back by flow control
    stream.cancel()


def test_reflection_repeats_no_long_names(channel: grpc.Channel) -> None:
    codes = []
    for length in (16 << 10, 8 << 10):
        asked = reflection_pb2.ServerReflectionRequest(file_by_filename="n" * length).SerializeToString()
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        )
        call: Any = stub(iter([asked]), timeout=60)
        with contextlib.suppress(grpc.RpcError):
            list(call)
        codes.append(call.code().name)
    assert codes == ["INVALID_ARGUMENT", "OK"]


def test_reflection_tells_every_service_and_message(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert list(database.get_services()) == [
        "grpc.health.v1.Health", "inference.GRPCInferenceService", "inferry.v1.Diagnostics",
        "inferry.v1.ImageClassifier",
    ]  # fmt: skip
    pool = DescriptorPool(database)
    methods = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name
    assert "ModelInfer" in methods
    assert pool.FindMessageTypeByName("inferry.v1.ModelManifest").fields_by_name["labels"].number == 5
    with pytest.raises(KeyError):
        pool.FindMessageTypeByName("inference.Nothing")


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        call_raw(channel, "/inference.GRPCInferenceService/Nothing", b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_every_rpc_of_the_protocol_has_a_handler(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    codes = {}
    with (
        running_server(tmp_path, system_shared_memory=True, transport=transport) as running,
        grpc.insecure_channel(str(running.grpc_address)) as opened,
    ):
        for name, method in OPEN_INFERENCE.items():
            try:
                if method.server_streaming:
                    stream: grpc.StreamStreamMultiCallable[bytes, bytes] = opened.stream_stream(method.path)
                    list(stream(iter([]), timeout=10))
                else:
                    call_raw(opened, method.path, b"")
                codes[name] = grpc.StatusCode.OK
            except grpc.RpcError as error:
                codes[name] = error.code()
    missing = {name for name, code in codes.items() if code is grpc.StatusCode.UNIMPLEMENTED}
    assert not missing


def test_bytes_that_are_no_message_are_an_invalid_argument(channel: grpc.Channel) -> None:
    for path in ("inferry.v1.ImageClassifier/Classify", "inference.GRPCInferenceService/ModelInfer"):
        with pytest.raises(grpc.RpcError, match="is not a") as error:
            call_raw(channel, "/" + path, b"\xff\xff")
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
