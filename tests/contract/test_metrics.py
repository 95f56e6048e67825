"""The account that a real server gives of its calls, its queues and its connections."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferry_proto import classifier_pb2 as pb
from inferry_proto.services import IMAGE_CLASSIFIER
from inferry_server.app import Server
from testkit import onnx_models
from testkit.metrics_page import read_metrics, total, wait_for_value
from testkit.pictures import encode_picture, grey
from testkit.rpc import call, check_health
from testkit.servers import running_server


def test_every_call_received_has_exactly_one_outcome(server: Server, channel: grpc.Channel) -> None:
    bad = pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=b"x")])
    good = pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=encode_picture(grey(3)))])
    for request in (good, bad, good, pb.ClassifyRequest()):
        with suppress(grpc.RpcError):
            call(channel, "Classify", request)
    with suppress(grpc.RpcError):
        check_health(channel, "nothing")
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


def test_metrics_tell_why_requests_are_refused_what_waits_and_who_is_connected(tmp_path: Path, transport: str) -> None:
    onnx_models.save_brightness(tmp_path)
    limits: dict[str, Any] = {
        "max_batch_size": 4,
        "max_request_rows": 4,
        "max_queue_size": 4,
        "max_queue_delay_us": 60_000_000,
    }
    image = pb.Image(encoded=encode_picture(grey(3)))
    path = IMAGE_CLASSIFIER["Classify"].path
    labels = 'model="brightness"'
    with running_server(tmp_path, transport=transport, **limits) as server:
        assert wait_for_value(server, "inferry_open_connections", 0)
        with grpc.insecure_channel(str(server.grpc_address)) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            next(watch)
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            waiting = stub.future(
                pb.ClassifyRequest(model_name="brightness", images=[image] * 3).SerializeToString(), timeout=60
            )
            wait_for_value(server, f'inferry_queue_rows{{lane="interactive",{labels},version="1"}}', 3)
            for images in ([image] * 2, [pb.Image(encoded=b"x")], []):
                with pytest.raises(grpc.RpcError):
                    call(channel, "Classify", pb.ClassifyRequest(model_name="brightness", images=images))
            metrics = read_metrics(server)
            for reason in ("queue_full_rows", "undecodable", "invalid_request"):
                assert metrics[f'inferry_requests_refused_total{{{labels},reason="{reason}",version="1"}}'] == 1
            assert metrics[f'inferry_queue_oldest_age_seconds{{lane="interactive",{labels},version="1"}}'] > 0
            assert metrics[f'inferry_queue_oldest_age_seconds{{lane="bulk",{labels},version="1"}}'] == 0
            assert metrics['inferry_open_streams{method="/grpc.health.v1.Health/Watch"}'] == 1
            assert metrics[f'inferry_model_info{{{labels},provider="CPUExecutionProvider",version="1"}}'] == 1
            assert metrics["process_resident_memory_bytes"] > 0
            in_flight = 2
            received = total(metrics, "inferry_requests_received_total")
            assert received == total(metrics, "inferry_requests_outcome_total") + in_flight == 5
            wait_for_value(server, "inferry_open_connections", 1)
            watch.cancel()
            call(channel, "Classify", pb.ClassifyRequest(model_name="brightness", images=[image]))  # fills the batch
            assert pb.ClassifyResponse.FromString(waiting.result(timeout=10)).results
            wait_for_value(server, 'inferry_open_streams{method="/grpc.health.v1.Health/Watch"}', 0)
        metrics = wait_for_value(server, "inferry_open_connections", 0)
        assert total(metrics, "inferry_requests_received_total") == 6
        assert total(metrics, "inferry_requests_outcome_total") == 6
