"""Server reflection (v1 and v1alpha, whose messages are the same), from the descriptors of our pools."""

from collections.abc import Callable, Iterable

import grpc
from google.protobuf.descriptor import Descriptor, FileDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import DESCRIPTOR as HEALTH_FILE
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from inferry_server.errors import DecodingError, InvalidRequestError, ShuttingDownError
from inferry_server.rpc.call import StreamCall, StreamHandler, fail

HEALTH_SERVICE: ServiceDescriptor = HEALTH_FILE.services_by_name["Health"]

_PATHS = tuple(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))
_NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
_LONGEST_REQUEST = 16 << 10  # bytes; a reply repeats it, twice where nothing has that name


class ReflectionService:
    """Tells clients like grpcurl which services there are and what their messages look like."""

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        self._services = {service.full_name: service for service in services}
        self._files: dict[str, FileDescriptor] = {}
        for service in self._services.values():
            self._add_file(service.file)
        self._symbols = dict(_symbols(self._files.values()))

    def stream_handlers(self) -> dict[str, StreamHandler]:
        """Handlers by path."""
        return dict.fromkeys(_PATHS, self.server_reflection_info)

    def server_reflection_info(self, call: StreamCall) -> "_ReflectionReceiver":
        """Reply to question after question of one stream."""
        return _ReflectionReceiver(self.answer, call)

    def answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        """The reply to one question; of an unknown name it contains an error."""
        response = ServerReflectionResponse(valid_host=request.host, original_request=request)
        question = request.WhichOneof("message_request")
        if question == "list_services":
            names = [ServiceResponse(name=name) for name in sorted(self._services)]
            response.list_services_response.CopyFrom(ListServiceResponse(service=names))
            return response
        file = None
        if question == "file_by_filename":
            file = self._files.get(request.file_by_filename)
        elif question == "file_containing_symbol":
            file = self._symbols.get(request.file_containing_symbol)
        if file is None:
            asked = getattr(request, question) if question else "nothing"
            response.error_response.CopyFrom(
                ErrorResponse(error_code=_NOT_FOUND, error_message=f"{question}: {asked} is not known here")
            )
        else:
            response.file_descriptor_response.CopyFrom(
                FileDescriptorResponse(file_descriptor_proto=[f.serialized_pb for f in _with_dependencies(file)])
            )
        return response

    def _add_file(self, file: FileDescriptor) -> None:
        for known in _with_dependencies(file):
            self._files[known.name] = known


class _ReflectionReceiver:
    def __init__(self, answer: Callable[[ServerReflectionRequest], ServerReflectionResponse], call: StreamCall) -> None:
        self._answer = answer
        self._call = call

    def on_message(self, message: bytes) -> None:
        if len(message) > _LONGEST_REQUEST:  # guard: reflection-names
            raise InvalidRequestError(
                f"the request has {len(message)} bytes; expected the name of a symbol or file, at most "
                f"{_LONGEST_REQUEST}"
            )
        try:
            request = ServerReflectionRequest.FromString(message)
        except DecodeError as error:
            raise DecodingError(f"the request is not a ServerReflectionRequest: {error}") from None
        self._call.send(self._answer(request).SerializeToString())

    def on_half_close(self) -> None:
        self._call.finish()

    def on_drain(self) -> None:
        fail(self._call, ShuttingDownError())


def _with_dependencies(file: FileDescriptor) -> list[FileDescriptor]:
    """The file after everything it imports, each once."""
    ordered: dict[str, FileDescriptor] = {}
    for dependency in file.dependencies:
        ordered |= {known.name: known for known in _with_dependencies(dependency)}
    ordered[file.name] = file
    return list(ordered.values())


def _symbols(files: Iterable[FileDescriptor]) -> Iterable[tuple[str, FileDescriptor]]:
    for file in files:
        for service in file.services_by_name.values():
            yield service.full_name, file
            yield from ((method.full_name, file) for method in service.methods)
        for enum in file.enum_types_by_name.values():
            yield enum.full_name, file
        for message in file.message_types_by_name.values():
            yield from ((name, file) for name in _message_symbols(message))


def _message_symbols(message: Descriptor) -> Iterable[str]:
    yield message.full_name
    for enum in message.enum_types:
        yield enum.full_name
    for nested in message.nested_types:
        yield from _message_symbols(nested)
