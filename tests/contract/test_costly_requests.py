"""Requests that would cost far more than their size says are refused before they do."""

from pathlib import Path

import grpc
import pytest

from inferry_proto.classifier_pb2 import ClassifyRequest
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelStreamInferResponse, ServerLiveRequest
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE
from testkit import onnx_models
from testkit.metrics_page import wait_for_value
from testkit.rpc import call, call_raw
from testkit.servers import running_server
from testkit.waiting import SOON_S

INFER, CLASSIFY = OPEN_INFERENCE["ModelInfer"].path, IMAGE_CLASSIFIER["Classify"].path


def test_messages_with_too_many_fields_are_refused_and_counted(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    tiny = {
        INFER: ModelInferRequest(model_name="doubler", raw_input_contents=[b""] * 1000),
        CLASSIFY: ClassifyRequest(model_name="doubler", images=[{}] * 1000),
    }
    with running_server(tmp_path, transport=transport, max_message_fields=500) as server:
        with grpc.insecure_channel(str(server.grpc_address)) as channel:
            for path, message in tiny.items():
                with pytest.raises(grpc.RpcError, match="more than 500 fields") as raised:
                    call_raw(channel, path, message.SerializeToString())
                assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                OPEN_INFERENCE["ModelStreamInfer"].path
            )
            with pytest.raises(grpc.RpcError, match="more than 500 fields"):
                list(map(ModelStreamInferResponse.FromString, stub(iter([tiny[INFER].SerializeToString()]))))
            assert call(channel, "ServerLive", ServerLiveRequest()).live
        outcome = f'code="INVALID_ARGUMENT",method="{INFER}",reason="too_many_fields"'
        wait_for_value(server, f"inferry_requests_outcome_total{{{outcome}}}", 1)


def test_messages_of_very_many_tiny_texts_are_refused_and_counted(tmp_path: Path, transport: str) -> None:
    onnx_models.save_text_echo(tmp_path)
    message = ModelInferRequest(model_name="echo", raw_input_contents=[b"\x01\x00\x00\x00a" * 502])
    message.inputs.add(name="in", datatype="BYTES", shape=[251, 2])
    with running_server(tmp_path, transport=transport, max_message_fields=500) as server:
        too_many = pytest.raises(grpc.RpcError, match="502 texts; expected at most 500")
        with grpc.insecure_channel(str(server.grpc_address)) as channel, too_many:
            call(channel, "ModelInfer", message)
        outcome = f'code="INVALID_ARGUMENT",method="{INFER}",reason="too_many_fields"'
        wait_for_value(server, f"inferry_requests_outcome_total{{{outcome}}}", 1)


@pytest.mark.parametrize("accepted", [True, False])
def test_compressed_requests_are_taken_unless_a_setting_refuses_them(
    tmp_path: Path, transport: str, accepted: bool
) -> None:
    onnx_models.save_doubler(tmp_path)
    with (
        running_server(tmp_path, transport=transport, compressed_requests=accepted) as server,
        grpc.insecure_channel(str(server.grpc_address), compression=grpc.Compression.Gzip) as channel,
    ):
        message = ModelInferRequest(model_name="n" * 1000).SerializeToString()
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        with pytest.raises(grpc.RpcError) as raised:
            stub(message, timeout=SOON_S)
        expected = grpc.StatusCode.NOT_FOUND if accepted else grpc.StatusCode.UNIMPLEMENTED
        assert raised.value.code() is expected
        with grpc.insecure_channel(str(server.grpc_address)) as plain:
            assert call(plain, "ServerLive", ServerLiveRequest()).live
