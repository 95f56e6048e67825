"""Classification, health, reflection and metrics of a real server."""

import asyncio
import io
import queue
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image

from inferry_proto import classifier_pb2 as pb
from inferry_proto.preprocessing import UInt8Array
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE
from inferry_server.app import Server
from inferry_server.readiness import Phase
from testkit import onnx_models
from testkit.servers import running_server

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
SPARE_THREADS = 8  # of gRPC's own pools, which grow by a few with the machine's load


@pytest.fixture
def server(tmp_path: Path, transport: str) -> Iterator[Server]:
    onnx_models.save_brightness(tmp_path)
    onnx_models.save_doubler(tmp_path)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with running_server(tmp_path, transport=transport) as running:
        yield running


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.grpc_address)) as opened:
        yield opened


def call(channel: grpc.Channel, name: str, request: Message) -> Any:
    method = IMAGE_CLASSIFIER[name]
    return method.response_type.FromString(call_raw(channel, method.path, request.SerializeToString()))


def call_raw(channel: grpc.Channel, path: str, message: bytes) -> bytes:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    return stub(message, timeout=10)


def png(pixels: UInt8Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def grey(level: int, side: int = 4) -> UInt8Array:
    return np.full((side, side), level, np.uint8)


def raw(pixels: UInt8Array) -> pb.Image:
    height, width, channels = pixels.shape
    return pb.Image(pixels=pb.Pixels(height=height, width=width, channels=channels, data=pixels.tobytes()))


GREY_PNG = png(grey(1))
NO_PIXELS = pb.Pixels(height=2, width=2, channels=1)


def test_pictures_and_pixels_of_any_size_are_classified_in_order(channel: grpc.Channel) -> None:
    images = [
        pb.Image(encoded=png(grey(0, 9))),
        raw(np.full((5, 7, 3), 255, np.uint8)),
        pb.Image(encoded=png(grey(51))),
    ]
    response = call(channel, "Classify", pb.ClassifyRequest(model_name="brightness", id="9", images=images, top_k=5))
    found = [[(c.index, c.label, round(c.probability, 4)) for c in r.classifications] for r in response.results]
    assert found == [
        [(0, "dark", 1), (1, "bright", 0)],
        [(1, "bright", 1), (0, "dark", 0)],
        [(0, "dark", 0.8), (1, "bright", 0.2)],
    ]
    assert (response.id, response.model_name, response.model_version) == ("9", "brightness", "1")
    assert response.timing.decode_us > 0


def test_only_labels_that_are_probable_enough_are_given(channel: grpc.Channel) -> None:
    images = [pb.Image(encoded=png(grey(level))) for level in (51, 128)]
    request = pb.ClassifyRequest(model_name="brightness", images=images, top_k=2, min_probability=0.6)
    found = [[c.label for c in result.classifications] for result in call(channel, "Classify", request).results]
    assert found == [["dark"], []]


def test_a_stream_of_pictures_is_answered_in_order_with_errors_in_band(channel: grpc.Channel) -> None:
    requests = [
        pb.ClassifyRequest(model_name="brightness", id=str(i), images=[pb.Image(encoded=b"x" if i == 3 else GREY_PNG)])
        for i in range(20)
    ]
    method = IMAGE_CLASSIFIER["ClassifyStream"]
    stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method.path)
    answers = [
        pb.ClassifyStreamResponse.FromString(message)
        for message in stub((request.SerializeToString() for request in requests), timeout=20)
    ]
    assert [answer.response.id for answer in answers] == [str(i) for i in range(20)]
    for i, answer in enumerate(answers):
        if i == 3:
            assert answer.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            assert "image 0: not a picture" in answer.error_message
        else:
            assert (answer.error_code, answer.error_message) == (0, "")
            assert answer.response.results[0].classifications[0].label == "dark"


def test_one_label_is_given_where_no_number_was_asked_for(channel: grpc.Channel) -> None:
    request = pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=png(grey(255)))])
    (result,) = call(channel, "Classify", request).results
    assert [c.label for c in result.classifications] == ["bright"]


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (pb.ClassifyRequest(model_name="nothing"), "NOT_FOUND", "model 'nothing'"),
        (pb.ClassifyRequest(model_name="doubler"), "FAILED_PRECONDITION", "does not classify pictures"),
        (pb.ClassifyRequest(model_name="brightness"), "INVALID_ARGUMENT", "0 images; .* takes 1 to 256"),
        (
            pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=GREY_PNG), pb.Image(encoded=b"x")]),
            "INVALID_ARGUMENT",
            "image 1: not a picture",
        ),
        (
            pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=GREY_PNG)], min_probability=1.5),
            "INVALID_ARGUMENT",
            "min_probability is 1.5; expected 0 to 1",
        ),
        (
            pb.ClassifyRequest(model_name="brightness", images=[pb.Image()]),
            "INVALID_ARGUMENT",
            "image 0: not a picture.*0 bytes came",
        ),
        (
            pb.ClassifyRequest(model_name="brightness", images=[pb.Image(pixels=NO_PIXELS)]),
            "INVALID_ARGUMENT",
            "image 0: 0 bytes came for 2x2x1 pixels; expected 4",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_classified_is_named_with_the_right_status(
    channel: grpc.Channel, request_: pb.ClassifyRequest, status: str, message: str
) -> None:
    with pytest.raises(grpc.RpcError, match=message) as error:
        call(channel, "Classify", request_)
    assert error.value.code().name == status


def test_a_model_describes_how_pictures_become_its_input(channel: grpc.Channel) -> None:
    response = call(channel, "DescribeModel", pb.DescribeModelRequest(model_name="brightness"))
    assert list(response.labels) == ["dark", "bright"]
    assert (response.preprocessing.height, response.max_batch_size, response.model_version) == (4, 256, "1")
    assert [t.name for t in response.signature.inputs] == ["images"]
    assert not call(channel, "DescribeModel", pb.DescribeModelRequest(model_name="doubler")).HasField("preprocessing")


def check(channel: grpc.Channel, service: str) -> int:
    return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service)).status)


def test_health_is_told_for_the_server_the_process_and_each_model(server: Server, channel: grpc.Channel) -> None:
    ready = ("", "liveness", "inference.GRPCInferenceService", "inferry.v1.ImageClassifier", "brightness", "doubler")
    assert [check(channel, service) for service in ready] == [SERVING] * len(ready)
    assert check(channel, "broken") == NOT_SERVING
    with pytest.raises(grpc.RpcError) as error:
        check(channel, "nothing")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    server.readiness.enter(Phase.DRAINING)
    assert check(channel, "") == check(channel, "brightness") == NOT_SERVING
    assert check(channel, "liveness") == SERVING  # a pod that drains must not be killed


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
                wait_until_received(running, path)
        for stream in streams:
            with pytest.raises(grpc.RpcError, match="shutting down"):
                next(stream)
    ask.put(None)
    ask.put(None)


def test_a_client_that_does_not_read_is_not_read_either(channel: grpc.Channel) -> None:
    sent = 0
    stalled = threading.Event()
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest")

    def requests() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1_000_000):
            sent += 1
            yield request.SerializeToString()

    stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    )
    stream = stub(requests(), timeout=60)
    before = -1
    while before < sent:
        before = sent
        stalled.wait(0.5)
    assert sent < 900_000  # the rest is held back by flow control
    stream.cancel()


def test_reflection_tells_every_service_and_message(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert list(database.get_services()) == [
        "grpc.health.v1.Health", "inference.GRPCInferenceService", "inferry.v1.ImageClassifier",
    ]  # fmt: skip
    pool = DescriptorPool(database)
    methods = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name
    assert "ModelInfer" in methods
    assert pool.FindMessageTypeByName("inferry.v1.ModelManifest").fields_by_name["labels"].number == 5
    with pytest.raises(KeyError):
        pool.FindMessageTypeByName("inference.Nothing")


def wait_until_received(server: Server, path: str) -> None:
    """A call has arrived that answers nothing by itself."""
    pause = threading.Event()
    while not any(path in name and "received" in name for name in read_metrics(server)):
        pause.wait(0.02)


def read_metrics(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def total(metrics: dict[str, float], name: str) -> float:
    return sum(value for key, value in metrics.items() if key.startswith(name + "{"))


def test_every_call_received_has_exactly_one_outcome(server: Server, channel: grpc.Channel) -> None:
    bad = pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=b"x")])
    good = pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=png(grey(3)))])
    for request in (good, bad, good, pb.ClassifyRequest()):
        with suppress(grpc.RpcError):
            call(channel, "Classify", request)
    with suppress(grpc.RpcError):
        check(channel, "nothing")
    metrics = read_metrics(server)
    assert total(metrics, "inferry_requests_received_total") == 5
    assert total(metrics, "inferry_requests_outcome_total") == 5
    path = IMAGE_CLASSIFIER["Classify"].path
    assert metrics[f'inferry_requests_outcome_total{{code="OK",method="{path}",reason=""}}'] == 2
    assert (
        metrics[f'inferry_requests_outcome_total{{code="INVALID_ARGUMENT",method="{path}",reason="undecodable"}}'] == 1
    )
    assert metrics['inferry_rows_computed_total{model="brightness",version="1"}'] == 2
    assert metrics['inferry_queue_rows{lane="interactive",model="brightness",version="1"}'] == 0
    assert metrics['inferry_model_loads_total{model="broken",outcome="failed"}'] == 1
    assert metrics["inferry_ready_models"] == 2
    assert metrics["inferry_ready"] == 1


def wait_until(server: Server, name: str, value: float) -> dict[str, float]:
    """The metrics, once a series has a value."""
    pause = threading.Event()
    for _ in range(500):
        metrics = read_metrics(server)
        if metrics.get(name) == value:
            return metrics
        pause.wait(0.02)
    raise AssertionError(f"{name} is {metrics.get(name)}; expected {value}")


def test_metrics_tell_why_requests_are_refused_what_waits_and_who_is_connected(tmp_path: Path, transport: str) -> None:
    onnx_models.save_brightness(tmp_path)
    limits: dict[str, Any] = {
        "max_batch_size": 4,
        "max_request_rows": 4,
        "max_queue_size": 4,
        "max_queue_delay_us": 60_000_000,
    }
    image = pb.Image(encoded=png(grey(3)))
    path = IMAGE_CLASSIFIER["Classify"].path
    labels = 'model="brightness"'
    with running_server(tmp_path, transport=transport, **limits) as server:
        assert wait_until(server, "inferry_open_connections", 0)
        with grpc.insecure_channel(str(server.grpc_address)) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            next(watch)
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            waiting = stub.future(
                pb.ClassifyRequest(model_name="brightness", images=[image] * 3).SerializeToString(), timeout=60
            )
            wait_until(server, f'inferry_queue_rows{{lane="interactive",{labels},version="1"}}', 3)
            for images in ([image] * 2, [pb.Image(encoded=b"x")], []):
                with pytest.raises(grpc.RpcError):
                    call(channel, "Classify", pb.ClassifyRequest(model_name="brightness", images=images))
            metrics = read_metrics(server)
            for reason in ("queue_full_rows", "undecodable", "invalid_request"):
                assert metrics[f'inferry_requests_refused_total{{{labels},reason="{reason}",version="1"}}'] == 1
            assert metrics[f'inferry_queue_oldest_age_seconds{{lane="interactive",{labels},version="1"}}'] > 0
            assert metrics[f'inferry_queue_oldest_age_seconds{{lane="bulk",{labels},version="1"}}'] == 0
            assert metrics["inferry_open_connections"] == 1
            assert metrics['inferry_open_streams{method="/grpc.health.v1.Health/Watch"}'] == 1
            assert metrics[f'inferry_model_info{{{labels},provider="CPUExecutionProvider",version="1"}}'] == 1
            assert metrics["process_resident_memory_bytes"] > 0
            in_flight = 2
            received = total(metrics, "inferry_requests_received_total")
            assert received == total(metrics, "inferry_requests_outcome_total") + in_flight == 5
            watch.cancel()
            call(channel, "Classify", pb.ClassifyRequest(model_name="brightness", images=[image]))  # fills the batch
            assert pb.ClassifyResponse.FromString(waiting.result(timeout=10)).results
            wait_until(server, 'inferry_open_streams{method="/grpc.health.v1.Health/Watch"}', 0)
        metrics = wait_until(server, "inferry_open_connections", 0)
        assert total(metrics, "inferry_requests_received_total") == 6
        assert total(metrics, "inferry_requests_outcome_total") == 6


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
