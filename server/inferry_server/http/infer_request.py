"""An infer request over HTTP, JSON or JSON with binary tensors behind it, to the message that gRPC would carry."""

import json
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.errors import DecodingError, InvalidRequestError, RequestTooLargeError
from inferry_server.http.bodies import read_length
from inferry_server.http.json_tensors import raw_from_json
from inferry_server.http.json_text import kind_of, orjson
from inferry_server.wire.encode import varint

MOST_JSON_BYTES = 16 << 20
"""Of a request: reading JSON holds up everything else in this process, some 15 ms for each MiB of numbers."""

_loads_fast: Callable[[bytes], Any] = json.loads if orjson is None else orjson.loads
HEADER_LENGTH = "inference-header-content-length"
RAW_TAG = bytes([ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2])
_INT64, _UINT64 = 1 << 63, 1 << 64


class BinaryWanted:
    """Which outputs go behind the JSON of the response, by the request.

    Args:
        request: the JSON of it.

    Attributes:
        key: the same for all that want the same.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._all = _parameters(request, "the request").get("binary_data_output") is True
        self._each = {
            output.get("name"): output["parameters"]["binary_data"]
            for output in request.get("outputs") or ()
            if "binary_data" in (output.get("parameters") or {})
        }
        self.key = (self._all, *self._each.items())

    def __call__(self, output: str) -> bool:
        """Whether an output is wanted so."""
        return bool(self._each.get(output, self._all))


@dataclass(frozen=True)
class ReadRequest:
    """An infer request that was read.

    Attributes:
        message: all of it but the contents of its inputs.
        raws: the contents of each input; None for one that has none here.
        wanted: how its outputs are to be written.
    """

    message: ModelInferRequest
    raws: Sequence[bytes | memoryview | None]
    wanted: BinaryWanted

    def written(self) -> bytes:
        """The message's bytes, with raw contents written behind it: no copy is made of them before."""
        pieces: list[bytes | memoryview] = [self.message.SerializeToString()]
        for raw in self.raws:
            if raw is not None:
                pieces += (RAW_TAG, varint(len(raw)), raw)
        return b"".join(pieces)


def read_infer_request(
    body: bytes, headers: Mapping[str, str], *, model: str, version: str
) -> tuple[bytes, BinaryWanted]:
    """The message that asks the same, and how its outputs are to be written.

    Args:
        body: of the request, decompressed.
        headers: of the request; `Inference-Header-Content-Length` says where the JSON ends and tensors begin.
        model: from the path.
        version: from the path; empty for none.

    Raises:
        DecodingError: no JSON, or tensors that are not as they are described.
        InvalidRequestError: fields of another kind than the protocol has.
        RequestTooLargeError: too much of it is JSON.
    """
    length = json_length(body, headers.get(HEADER_LENGTH))
    header = body if length == len(body) else body[:length]
    read = read_described(read_json_object(header), body, length, model=model, version=version)
    return read.written(), read.wanted


def json_length(body: bytes, stated: str | None) -> int:
    """How many bytes of a body are JSON.

    Args:
        body: of the request, decompressed.
        stated: its `Inference-Header-Content-Length`; None for none.

    Raises:
        DecodingError: it is no length, or longer than the body.
    """
    length = len(body) if stated is None else read_length(stated.strip(" \t"))  # the parser leaves what is behind it
    if length is None or length > len(body):
        raise DecodingError(
            f"Inference-Header-Content-Length is {(stated or '')[:20]!r}; expected the length of the JSON, up to "
            f"{len(body)}"
        )
    return length


def read_described(request: Mapping[str, Any], body: bytes, start: int, *, model: str, version: str) -> ReadRequest:
    """A request whose JSON was read.

    Args:
        request: its JSON.
        body: all of it.
        start: where the tensors behind the JSON begin.
        model: from the path.
        version: from the path; empty for none.

    Raises:
        DecodingError: tensors that are not as they are described.
        InvalidRequestError: fields of another kind than the protocol has.
    """
    binary = _Binary(body, start)
    message = ModelInferRequest(model_name=model, model_version=version, id=_text(request, "id", "the request"))
    _set_parameters(message.parameters, _parameters(request, "the request"), but=("binary_data_output",))
    raws = [_add_input(message, tensor, binary) for tensor in _tensors(request, "inputs")]
    binary.finish()
    for tensor in _tensors(request, "outputs"):
        output = message.outputs.add(name=_name(tensor, "an output"))
        what = f"output {output.name!r}"
        parameters = _parameters(tensor, what)
        if not isinstance(parameters.get("binary_data", False), bool):
            raise InvalidRequestError(f"{what}: parameter 'binary_data' must be true or false")
        _set_parameters(output.parameters, parameters, but=("binary_data",))
    return ReadRequest(message, raws, BinaryWanted(request))


def read_json_object(text: bytes) -> dict[str, Any]:
    """What a JSON object holds; nothing where there is no text.

    Raises:
        DecodingError: anything else.
        RequestTooLargeError: more than `MOST_JSON_BYTES`.
    """
    if len(text) > MOST_JSON_BYTES:  # guard: json-bounded
        raise RequestTooLargeError(
            f"the request has {len(text)} bytes of JSON, the limit is {MOST_JSON_BYTES}; "
            "send tensors behind it, with Inference-Header-Content-Length and binary_data_size"
        )
    if not text.strip():
        return {}
    try:
        value = _loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodingError(f"the request is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise DecodingError(f"the request must be a JSON object, not {kind_of(value)}")
    return value


def _loads(text: bytes) -> Any:
    """By orjson where it is there, in a tenth of the time; it refuses NaN, infinities and half characters."""
    try:
        return _loads_fast(text)
    except ValueError:
        return json.loads(text)


def set_parameter(parameter: Any, value: Any, what: str) -> None:
    """Write a JSON value as a parameter, of a request or of a load.

    Raises:
        InvalidRequestError: it cannot be one.
    """
    match value:
        case bool():
            parameter.bool_param = value
        case int() if -_INT64 <= value < _INT64:
            parameter.int64_param = value
        case int() if 0 <= value < _UINT64:
            parameter.uint64_param = value
        case float():
            parameter.double_param = value
        case str():
            parameter.string_param = _utf8(value, what)
        case int():
            raise InvalidRequestError(f"{what} must be a number of 64 bits at most, not {reprlib.repr(value)}")
        case _:
            raise InvalidRequestError(f"{what} must be a boolean, a number or a text, not {kind_of(value)}")


class _Binary:
    """What stands behind the JSON; inputs take their part in order."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._position = start

    def take(self, size: int, what: str) -> memoryview:
        left = len(self._data) - self._position
        if size > left:
            raise DecodingError(f"{what}: binary_data_size is {size}, and {left} bytes are left behind the JSON")
        start, self._position = self._position, self._position + size
        return memoryview(self._data)[start : self._position]

    def finish(self) -> None:
        left = len(self._data) - self._position
        if left:  # guard: http-binary-left
            raise DecodingError(f"{left} bytes behind the JSON belong to no input: no binary_data_size takes them")


def _add_input(message: ModelInferRequest, tensor: Mapping[str, Any], binary: _Binary) -> bytes | memoryview | None:
    """Describe an input; returns its raw contents, None where it lies in shared memory or says nothing."""
    name = _name(tensor, "an input")
    what = f"input {name!r}"
    added = message.inputs.add(name=name, datatype=_text(tensor, "datatype", what))
    added.shape.extend(_shape(tensor, what))
    parameters = _parameters(tensor, what)
    size = parameters.get("binary_data_size")
    _set_parameters(added.parameters, parameters, but=("binary_data_size",))
    if size is not None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            came = reprlib.repr(size) if type(size) in (int, float) else kind_of(size)
            raise InvalidRequestError(f"{what}: binary_data_size must be a whole number of bytes, not {came}")
        if "data" in tensor:
            raise InvalidRequestError(f"{what} has data and binary_data_size; expected one of them")
        return binary.take(size, what)
    if "data" not in tensor:
        return None
    datatype = DATATYPES.get(added.datatype)
    # An unknown datatype is told in the protocol's order, with what the model takes; its data is never read.
    return b"" if datatype is None else raw_from_json(tensor["data"], datatype, tensor=name)


def _tensors(request: Mapping[str, Any], field: str) -> Iterator[Mapping[str, Any]]:
    tensors = request.get(field)
    if tensors is None:
        return
    if not isinstance(tensors, list):
        raise InvalidRequestError(f"{field} must be a list of objects, not {kind_of(tensors)}")
    others = [kind_of(tensor) for tensor in tensors if not isinstance(tensor, dict)]
    if others:
        raise InvalidRequestError(f"{field} must be a list of objects, and {others[0]} is in it")
    yield from tensors


def _shape(tensor: Mapping[str, Any], what: str) -> list[int]:
    shape = tensor.get("shape", [])
    whole = isinstance(shape, list) and all(
        isinstance(axis, int) and not isinstance(axis, bool) and -_INT64 <= axis < _INT64 for axis in shape
    )
    if not whole:
        raise InvalidRequestError(
            f"{what}: shape must be a list of whole numbers of 64 bits at most, not {reprlib.repr(shape)}"
        )
    return list(shape)


def _name(tensor: Mapping[str, Any], what: str) -> str:
    if "name" not in tensor:
        raise InvalidRequestError(f"{what} has no name")
    return _text(tensor, "name", what)


def _text(holder: Mapping[str, Any], field: str, what: str) -> str:
    value = holder.get(field, "")
    if not isinstance(value, str):
        raise InvalidRequestError(f"{what}: {field} must be a text, not {kind_of(value)}")
    return _utf8(value, f"{what}: {field}")


def _utf8(text: str, what: str) -> str:
    """JSON can spell half a character, which no message can carry."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{what} is no text: {error.reason}") from None
    return text


def _parameters(holder: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequestError(f"{what}: parameters must be an object, not {kind_of(parameters)}")
    return parameters


def _set_parameters(target: Any, values: Mapping[str, Any], *, but: tuple[str, ...]) -> None:
    for name, value in values.items():
        if name not in but:
            set_parameter(target[_utf8(name, "the name of a parameter")], value, f"parameter {name!r}")
