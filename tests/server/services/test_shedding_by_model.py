"""More requests for one model than can be computed: they are shed, those for other models are not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferry_proto.classifier_pb2 import ClassifyRequest
from inferry_proto.open_inference_pb2 import ModelStreamInferResponse
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.app import Server
from inferry_server.batching.shedding import Shedding
from testkit import onnx_models
from testkit.metrics_page import read_metrics
from testkit.rpc import begin, call, first_output, infer_request, refusal
from testkit.servers import running_server
from testkit.waiting import SOON_S

SHED = ("RESOURCE_EXHAUSTED", "more requests come for this model than can be computed; this one was not queued")
UNREAD = ("RESOURCE_EXHAUSTED", "more requests come than can be computed; this one was not read")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    onnx_models.save_brightness(tmp_path)
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as running:
        yield running


def begin_shedding(server: Server, model: str) -> Shedding:
    (version,) = [version for version in server.registry.served() if version.model == model]
    shedding = version.batcher.shedding
    shedding.refused(0.0)
    shedding.begin(0.02)
    server._transport._inline_work.shedding = shedding  # type: ignore[attr-defined]
    return shedding


def refused(server: Server, model: str) -> float:
    metrics = read_metrics(server)
    return metrics.get(f'inferry_requests_refused_total{{model="{model}",reason="shed",version="1"}}', 0.0)


def test_another_model_replies_while_one_sheds_unary_calls_pictures_and_streams_alike(server: Server) -> None:
    picture = ClassifyRequest(model_name="brightness")
    picture.images.add(encoded=b"no picture, and never decoded")
    message = infer_request("brightness", images=np.zeros((1, 4, 4, 1), np.uint8))
    shedding = begin_shedding(server, "brightness")
    with grpc.insecure_channel(str(server.grpc_address)) as channel:
        assert refusal(begin(channel, "ModelInfer", message)) == SHED
        with pytest.raises(grpc.RpcError) as shed:
            call(channel, "Classify", picture)
        assert shed.value.details() == SHED[1]
        stream: Any = channel.stream_stream(
            OPEN_INFERENCE["ModelStreamInfer"].path,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=ModelStreamInferResponse.FromString,
        )
        (answer,) = stream(iter([message]), timeout=SOON_S)
        assert answer.error_message == SHED[1]
        other = begin(channel, "ModelInfer", infer_request("doubler", x=np.ones((1, 3), np.float32)))
        assert first_output(other).tolist() == [2.0, 2.0, 2.0]
        assert refused(server, "brightness") == 3
        assert refused(server, "doubler") == 0
        bulk = infer_request("brightness", images=np.zeros((1, 4, 4, 1), np.uint8))
        bulk.parameters["priority"].uint64_param = 2
        assert first_output(begin(channel, "ModelInfer", bulk)).tolist() == [1.0, 0.0]  # it has a lane of its own
        shedding.end()
        assert first_output(begin(channel, "ModelInfer", message)).tolist() == [1.0, 0.0]


def test_where_one_version_is_served_calls_are_shed_unread_and_counted_for_it(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as alone, grpc.insecure_channel(str(alone.grpc_address)) as channel:
        begin_shedding(alone, "doubler")
        message = infer_request("doubler", x=np.ones((1, 3), np.float32))
        assert refusal(begin(channel, "ModelInfer", message)) == UNREAD
        assert refused(alone, "doubler") == 1
