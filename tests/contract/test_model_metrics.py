"""What the metrics say of each version: outcomes, the parts of the time, limits, labels."""

import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferry_proto import classifier_pb2 as pb
from inferry_proto import open_inference_pb2
from inferry_proto.services import OPEN_INFERENCE
from inferry_proto.version_labels import write_version_labels
from inferry_server.app import Server
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.metrics_page import Metrics, read_metrics, total, wait_for_metrics, wait_for_value
from testkit.pictures import encode_picture, grey
from testkit.rpc import begin, call, infer_request, refusal
from testkit.servers import running_server

DOUBLER = 'model="doubler"'
PARTS = ("read", "queue", "compute", "reply")


def doubled(rows: int = 2, width: int = 3) -> open_inference_pb2.ModelInferRequest:
    return infer_request("doubler", x=np.ones((rows, width), np.float32))


def outcomes(metrics: Metrics, outcome: str) -> float:
    """Requests to `doubler` that ended so, for whatever reason."""
    found = (
        value
        for name, value in metrics.items()
        if name.startswith("inferry_model_requests_total{") and DOUBLER in name and f'outcome="{outcome}"' in name
    )
    return sum(found)


def stream(channel: grpc.Channel, *requests: open_inference_pb2.ModelInferRequest) -> int:
    """Send requests over one stream; returns how many answers came."""
    method = OPEN_INFERENCE["ModelStreamInfer"]
    stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method.path)
    return len(list(stub(iter([request.SerializeToString() for request in requests]), timeout=30)))


def test_every_request_for_a_version_has_one_outcome_whatever_brought_it(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    late = doubled()
    late.parameters["timeout"].int64_param = 1
    with (
        running_server(tmp_path, transport=transport) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        for request in (doubled(), doubled(width=4), late, doubled(rows=300)):
            with suppress(grpc.RpcError):
                call(channel, "ModelInfer", request)
        assert stream(channel, doubled(), doubled(width=4), doubled()) == 3
        body = b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'
        assert ask_http(server, "/v2/models/doubler/infer", body).code == 200
        metrics = read_metrics(server)
    assert outcomes(metrics, "answered") == 4
    assert outcomes(metrics, "refused") == 4
    assert metrics[f'inferry_model_requests_total{{{DOUBLER},outcome="answered",reason="",version="1"}}'] == 4
    mismatched = f'{{{DOUBLER},outcome="refused",reason="signature_mismatch",version="1"}}'
    assert metrics[f"inferry_model_requests_total{mismatched}"] == 2
    assert metrics[f'inferry_requests_refused_total{{{DOUBLER},reason="signature_mismatch",version="1"}}'] == 2
    assert metrics[f'inferry_model_request_duration_seconds_count{{{DOUBLER},version="1"}}'] == 4
    path = OPEN_INFERENCE["ModelInfer"].path
    otel = f'rpc_method="{path[1:]}",rpc_response_status_code="OK",rpc_system_name="grpc"'
    assert metrics[f"rpc_server_call_duration_seconds_count{{{otel}}}"] == 2
    assert metrics[f'inferry_request_duration_seconds_count{{method="{path}"}}'] == 5
    assert metrics[f'inferry_tensor_bytes_total{{direction="input",{DOUBLER},version="1"}}'] == (3 * 2 + 1) * 3 * 4


def test_who_gives_up_in_the_queue_is_counted_as_cancelled(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    settings: dict[str, Any] = {
        "max_batch_size": 4,
        "max_request_rows": 4,
        "max_queue_size": 4,
        "max_queue_delay_us": 60_000_000,
    }
    with (
        running_server(tmp_path, **settings) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        waiting = begin(channel, "ModelInfer", doubled())
        labels = f'lane="interactive",{DOUBLER},version="1"'
        metrics = wait_for_value(server, f"inferry_queue_rows{{{labels}}}", 2)
        assert metrics[f"inferry_queue_bytes{{{labels}}}"] == 24
        assert metrics[f'inferry_queue_limit_rows{{{DOUBLER},version="1"}}'] == 4
        waiting.cancel()
        wait_for_metrics(server, lambda metrics: outcomes(metrics, "cancelled") == 1, "it to be counted")
        call(channel, "ModelInfer", doubled(rows=4))
        wait_for_metrics(server, lambda metrics: outcomes(metrics, "answered") == 1, "the other to be counted")


def test_the_parts_of_requests_add_up_to_their_durations(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    onnx_models.save_brightness(tmp_path)
    delay_us = 1_000_000  # of waiting: what is not measured, around it, is far less than a twentieth of it
    with (
        running_server(tmp_path, max_queue_delay_us=delay_us) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        waiting = [begin(channel, "ModelInfer", doubled(rows=1)) for _ in range(4)]
        picture = pb.Image(encoded=encode_picture(grey(3)))
        waiting.append(begin(channel, "Classify", pb.ClassifyRequest(model_name="brightness", images=[picture])))
        for one in waiting:
            assert one.result(30)
        metrics = wait_for_metrics(
            server,
            lambda metrics: total(metrics, "inferry_request_duration_seconds_count") == len(waiting),
            "the ends of all calls to be counted",
        )
    parts_s = total(metrics, "inferry_model_request_part_seconds_total")
    whole_s = total(metrics, "inferry_model_request_duration_seconds_sum")
    calls_s = total(metrics, "inferry_request_duration_seconds_sum")
    assert parts_s == pytest.approx(whole_s, rel=1e-6)
    assert parts_s == pytest.approx(calls_s, rel=0.05)  # the two ends are not the same moment
    queued = f'inferry_model_request_part_seconds_total{{{DOUBLER},part="queue",version="1"}}'
    assert metrics[queued] >= 4 * 0.9 * delay_us / 1e6


def test_labels_traffic_build_limits_and_last_loads_are_told(tmp_path: Path) -> None:
    for version in (1, 2):
        onnx_models.save_doubler(tmp_path, version=version)
    write_version_labels(tmp_path / "doubler", {"stable": 1, "canary": 2}, {"stable": 95, "canary": 5})
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with running_server(tmp_path, max_connections=77) as server:
        metrics = read_metrics(server)
        assert metrics[f'inferry_model_label_info{{label="canary",{DOUBLER},version="2"}}'] == 1
        assert metrics[f'inferry_model_traffic_weight{{label="stable",{DOUBLER},version="1"}}'] == 95
        assert metrics[f'inferry_instances{{{DOUBLER},version="1"}}'] == 1
        assert metrics[f'inferry_capacity_rows_per_second{{{DOUBLER},version="1"}}'] > 0
        assert 0 < metrics["inferry_open_connections_limit"] <= 77
        assert metrics["inferry_drain_ends_timestamp_seconds"] == 0
        assert total(metrics, "inferry_build_info") == 1
        loaded = metrics[f'inferry_last_load_timestamp_seconds{{{DOUBLER},outcome="ready"}}']
        assert loaded <= metrics['inferry_last_load_timestamp_seconds{model="broken",outcome="failed"}'] + 60
        assert not any(name.startswith("inferry_gpu") for name in metrics)


def test_a_server_that_drains_says_when_it_should_be_gone(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        told: list[float] = []
        enter = server.readiness.enter
        server.readiness.enter = lambda phase: (enter(phase), told.append(_drain_ends(server)))  # type: ignore[method-assign, assignment, func-returns-value]
    assert told
    assert told[0] > 0


def _drain_ends(server: Server) -> float:
    return read_metrics(server)["inferry_drain_ends_timestamp_seconds"]


def test_a_traced_request_is_an_exemplar_of_its_bucket(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from inferry_server.telemetry.tracing import RequestTracer

    onnx_models.save_doubler(tmp_path)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    tracer = RequestTracer(InMemorySpanExporter, 0.0)
    with (
        running_server(tmp_path, tracer) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
        stub(
            doubled().SerializeToString(),
            metadata=(("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),),
            timeout=30,
        )
        request = urllib.request.Request(
            f"http://{server.metrics_address}/metrics", headers={"accept": "application/openmetrics-text"}
        )
        with urllib.request.urlopen(request, timeout=10) as page:  # noqa: S310
            text = page.read().decode()
    (line,) = [line for line in text.splitlines() if trace_id in line]
    assert line.startswith("inferry_model_request_duration_seconds_bucket")
    assert f'# {{trace_id="{trace_id}"}}' in line
    assert text.endswith("# EOF\n")


def test_an_unexpected_error_is_an_outcome_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_models.save_doubler(tmp_path)
    with (
        running_server(tmp_path) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        (version,) = server.registry.served()
        monkeypatch.setattr(version.batcher, "submit", lambda _: 1 / 0)
        assert refusal(begin(channel, "ModelInfer", doubled()))[0] == "INTERNAL"
        assert outcomes(read_metrics(server), "failed") == 1
