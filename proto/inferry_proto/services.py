"""Every RPC of the contracts, read from their descriptors: one table for servers and clients."""

from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from inferry_proto import classifier_pb2, diagnostics_pb2, open_inference_pb2


@dataclass(frozen=True)
class Method:
    """One RPC: where it is called and what travels each way."""

    path: str  # as HTTP/2 carries it: /package.Service/Method
    request_type: type[Message]
    response_type: type[Message]
    client_streaming: bool
    server_streaming: bool


def service_methods(service: ServiceDescriptor) -> dict[str, Method]:
    """The RPCs of a service by their short name (`ModelInfer`)."""
    return {
        method.name: Method(
            path=f"/{service.full_name}/{method.name}",
            request_type=_message_class(method.input_type),
            response_type=_message_class(method.output_type),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )
        for method in service.methods
    }


def _message_class(descriptor: Any) -> type[Message]:
    message_class: type[Message] = descriptor._concrete_class  # the class generated code registered
    return message_class


OPEN_INFERENCE_SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
IMAGE_CLASSIFIER_SERVICE = classifier_pb2.DESCRIPTOR.services_by_name["ImageClassifier"]
DIAGNOSTICS_SERVICE = diagnostics_pb2.DESCRIPTOR.services_by_name["Diagnostics"]

OPEN_INFERENCE = service_methods(OPEN_INFERENCE_SERVICE)
IMAGE_CLASSIFIER = service_methods(IMAGE_CLASSIFIER_SERVICE)
DIAGNOSTICS = service_methods(DIAGNOSTICS_SERVICE)
