"""Calls over a bare gRPC channel: a test sees the very status."""

from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from inferry_proto.datatypes import datatype_of
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from testkit.scripted_server import METHODS
from testkit.waiting import SOON_S

Future = Any  # grpc's future of bytes; it is a call and an error too, which no type says


def begin(channel: grpc.Channel, name: str, request: Message) -> Future:
    """Send a request and do not wait; the call has no deadline of its own."""
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHODS[name].path)
    return stub.future(request.SerializeToString())


def call(channel: grpc.Channel, name: str, request: Message) -> Any:
    """Send a request and wait for its response."""
    return METHODS[name].response_type.FromString(begin(channel, name, request).result(SOON_S))


def call_raw(channel: grpc.Channel, path: str, message: bytes) -> bytes:
    """Send bytes to any path and wait for the answer's."""
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    return stub(message, timeout=SOON_S)


def check_health(channel: grpc.Channel, service: str) -> int:
    """What Check answers for a service or model, as the number that stands for it."""
    stub = health_pb2_grpc.HealthStub(channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=SOON_S).status)


def refusal(future: Future) -> tuple[str, str]:
    """The status and message of a call that must fail."""
    error = future.exception(SOON_S)
    assert isinstance(error, grpc.RpcError), "answered; expected to be refused"
    return future.code().name, future.details()


def infer_request(model: str, **inputs: NDArray[Any]) -> ModelInferRequest:
    """A request with its tensors in raw_input_contents."""
    request = ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=datatype_of(array.dtype).name, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def first_output(future: Future, dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    """The first output of an answer, flat."""
    response = ModelInferResponse.FromString(future.result(SOON_S))
    return np.frombuffer(response.raw_output_contents[0], dtype)
