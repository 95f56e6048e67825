"""What the REST half asks of the server and its models, besides inference: each path is an RPC in JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferry_proto import diagnostics_pb2
from inferry_proto import open_inference_pb2 as pb
from inferry_proto.services import DIAGNOSTICS, OPEN_INFERENCE
from inferry_server.errors import InvalidRequestError
from inferry_server.http.calls import Calls
from inferry_server.http.infer_request import read_json_object, set_parameter
from inferry_server.http.json_messages import to_json
from inferry_server.http.replies import json_reply, refusal
from inferry_server.rpc.statuses import OK

Values = Mapping[str, Any]


@dataclass(frozen=True)
class RestCall:
    """One path of the REST half, and the RPC behind it.

    Attributes:
        path: with `{model}`, `{version}`, `{region}` where the protocol has names.
        rpc: its name in the protocol's service, or in `Diagnostics`.
        ask: makes the request message from what the path names and what the body says.
        tell: makes JSON of the response message.
        method: GET, or POST, which has a body.
    """

    path: str
    rpc: str
    ask: Callable[[Mapping[str, str], Values], Message]
    tell: Callable[[Any], Any] = to_json
    method: str = "GET"


_RPCS = OPEN_INFERENCE | DIAGNOSTICS


def control_routes(calls: Calls) -> list[Route]:
    """The routes of every call in `REST_CALLS`."""
    return [
        Route(one.path, _endpoint(one, calls), methods=[one.method], name=f"{one.method} {one.path}")
        for one in REST_CALLS
    ]


def _endpoint(one: RestCall, calls: Calls) -> Any:
    async def endpoint(request: Request) -> Response:
        def message(body: bytes) -> bytes:
            values = read_json_object(body) if one.method == "POST" else {}
            path = {name: text.encode(errors="replace").decode() for name, text in request.path_params.items()}
            try:
                return one.ask(path, values).SerializeToString()
            except (AttributeError, TypeError, ValueError) as error:  # what protobuf raises
                raise InvalidRequestError(f"the request does not fit {one.rpc}: {error}") from None

        rpc = _RPCS[one.rpc]
        status, response = await calls.ask(rpc.path, request, message)
        if status is not OK:
            return refusal(status)
        return json_reply(one.tell(rpc.response_type.FromString(response)))

    return endpoint


def _named(kind: type[Message]) -> Callable[[Mapping[str, str], Values], Message]:
    return lambda path, _: kind(name=path.get("model", ""), version=path.get("version", ""))


def _explain(path: Mapping[str, str], _values: Values) -> Message:
    return diagnostics_pb2.ExplainRequest(model_name=path.get("model", ""), model_version=path.get("version", ""))


def _region(kind: type[Message]) -> Callable[[Mapping[str, str], Values], Message]:
    return lambda path, _: kind(name=path.get("region", ""))


def _register(path: Mapping[str, str], values: Values) -> Message:
    return pb.SystemSharedMemoryRegisterRequest(
        name=path["region"], key=values.get("key", ""), offset=values.get("offset", 0),
        byte_size=values.get("byte_size", 0),
    )  # fmt: skip


def _index(_path: Mapping[str, str], values: Values) -> Message:
    ready = values.get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidRequestError(f"ready must be true or false, not {ready!r:.40}")
    return pb.RepositoryIndexRequest(ready=ready)


def _repository(
    kind: type[pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest],
) -> Callable[[Mapping[str, str], Values], Message]:
    def ask(path: Mapping[str, str], values: Values) -> Message:
        request = kind(model_name=path["model"])
        parameters = values.get("parameters")
        if not isinstance(parameters, dict | None):
            raise InvalidRequestError(f"parameters must be an object, not {parameters!r:.40}")
        for name, value in (parameters or {}).items():
            set_parameter(request.parameters[name], value, f"parameter {name!r}")
        return request

    return ask


def _trace(path: Mapping[str, str], values: Values) -> Message:
    request = pb.TraceSettingRequest(model_name=path.get("model", ""))
    for name, value in values.items():
        wanted = [] if value is None else value if isinstance(value, list) else [value]
        request.settings[name].value.extend(str(item) for item in wanted)
    return request


def _tell_trace(response: Any) -> Any:
    """As Triton writes them: levels are a list, everything else is one text."""
    settings = {name: list(setting.value) for name, setting in response.settings.items()}
    return {name: value if name == "trace_level" else value[0] for name, value in settings.items()}


def _log(_path: Mapping[str, str], values: Values) -> Message:
    request = pb.LogSettingsRequest()
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    for name, value in values.items():
        if type(value) not in kinds:
            raise InvalidRequestError(f"log setting {name!r} must be a boolean, a number or a text")
        setattr(request.settings[name], kinds[type(value)], value)
    return request


def _tell_log(response: Any) -> Any:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in sorted(response.settings.items())
    }


def _nothing(_response: Any) -> Any:
    return {}


_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_SYSTEM, _CUDA = "/v2/systemsharedmemory", "/v2/cudasharedmemory"

REST_CALLS = (
    RestCall("/v2", "ServerMetadata", lambda *_: pb.ServerMetadataRequest()),
    RestCall("/v2/models/stats", "ModelStatistics", _named(pb.ModelStatisticsRequest)),
    *(
        RestCall(path, rpc, _named(kind), tell)
        for base in (_MODEL, _VERSION)
        for path, rpc, kind, tell in (
            (base, "ModelMetadata", pb.ModelMetadataRequest, to_json),
            (f"{base}/config", "ModelConfig", pb.ModelConfigRequest, lambda response: to_json(response.config)),
            (f"{base}/stats", "ModelStatistics", pb.ModelStatisticsRequest, to_json),
        )
    ),
    *(RestCall(f"{base}/explain", "Explain", _explain) for base in ("/v2", _MODEL, _VERSION)),
    RestCall("/v2/repository/index", "RepositoryIndex", _index, lambda response: to_json(response)["models"], "POST"),
    RestCall(
        "/v2/repository/models/{model}/load", "RepositoryModelLoad",
        _repository(pb.RepositoryModelLoadRequest), _nothing, "POST",
    ),
    RestCall(
        "/v2/repository/models/{model}/unload", "RepositoryModelUnload",
        _repository(pb.RepositoryModelUnloadRequest), _nothing, "POST",
    ),
    *(
        RestCall(path, f"{kind}SharedMemoryStatus", _region(request), lambda r: list(to_json(r)["regions"].values()))
        for base, kind, request in (
            (_SYSTEM, "System", pb.SystemSharedMemoryStatusRequest),
            (_CUDA, "Cuda", pb.CudaSharedMemoryStatusRequest),
        )
        for path in (f"{base}/status", f"{base}/region/{{region}}/status")
    ),
    RestCall(f"{_SYSTEM}/region/{{region}}/register", "SystemSharedMemoryRegister", _register, _nothing, "POST"),
    *(
        RestCall(path, f"{kind}SharedMemoryUnregister", _region(request), _nothing, "POST")
        for base, kind, request in (
            (_SYSTEM, "System", pb.SystemSharedMemoryUnregisterRequest),
            (_CUDA, "Cuda", pb.CudaSharedMemoryUnregisterRequest),
        )
        for path in (f"{base}/unregister", f"{base}/region/{{region}}/unregister")
    ),
    *(
        RestCall(path, "TraceSetting", _trace, _tell_trace, method)
        for path in ("/v2/trace/setting", f"{_MODEL}/trace/setting")
        for method in ("GET", "POST")
    ),
    *(RestCall("/v2/logging", "LogSettings", _log, _tell_log, method) for method in ("GET", "POST")),
)  # fmt: skip
"""Every path of the REST half but health and inference."""
