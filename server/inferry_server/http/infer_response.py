"""The message that answers an infer request, as JSON, with the tensors behind it that were wanted so."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import InferParameter, ModelInferResponse
from inferry_server.errors import InvalidRequestError
from inferry_server.http.infer_request import HEADER_LENGTH, MOST_JSON_BYTES, BinaryWanted
from inferry_server.http.json_tensors import elements_text, json_from_raw

OutputTensor = ModelInferResponse.InferOutputTensor
Elements = Callable[[OutputTensor, bytes], str]

WrittenReply = tuple[bytes, int | None]
"""A body, and how many bytes of it are JSON; None: all of them."""

_REGION = "shared_memory_region"
_AS_JSON, _AS_BYTES = "application/json", "application/octet-stream"
_JSON_LINES = f"content-type: {_AS_JSON}\r\n".encode()
_BYTES_LINES = f"content-type: {_AS_BYTES}\r\n{HEADER_LENGTH}: %d\r\n".encode()


def write_infer_response(message: bytes, wanted: BinaryWanted) -> WrittenReply:
    """The body of the reply.

    Args:
        message: a ModelInferResponse.
        wanted: which outputs go behind the JSON.

    Raises:
        DecodingError: a text that JSON cannot carry.
        InvalidRequestError: more than JSON should carry.
    """
    response = ModelInferResponse.FromString(message)
    raws = response.raw_output_contents
    _check_size(response, wanted)
    text = response_json(response, raws, wanted, _elements)
    behind = [raw for tensor, raw in zip(response.outputs, raws, strict=True) if _is_behind(tensor, wanted)]
    return written_reply(text.encode(), behind)


def response_json(response: ModelInferResponse, raws: Sequence[bytes], wanted: BinaryWanted, elements: Elements) -> str:
    """The JSON of a response.

    Args:
        response: without regard to its raw_output_contents.
        raws: the data of each output.
        wanted: which outputs go behind it.
        elements: writes the data of another output.
    """
    outputs = [_output(tensor, raw, wanted, elements) for tensor, raw in zip(response.outputs, raws, strict=True)]
    reply: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        reply = {"id": response.id, **reply}
    if response.parameters:
        reply["parameters"] = {name: _value(parameter) for name, parameter in response.parameters.items()}
    return f'{_open(reply)},"outputs":[{",".join(outputs)}]}}'


def written_reply(text: bytes, binary: Sequence[bytes]) -> WrittenReply:
    """The body of JSON and what goes behind it."""
    return (b"".join((text, *binary)), len(text)) if binary else (text, None)


def reply_headers(json_bytes: int | None) -> dict[str, str]:
    """The headers of a reply, but for its length.

    Args:
        json_bytes: as `WrittenReply` has them.
    """
    if json_bytes is None:
        return {"content-type": _AS_JSON}
    return {"content-type": _AS_BYTES, HEADER_LENGTH: str(json_bytes)}


def reply_lines(json_bytes: int | None) -> bytes:
    """What `reply_headers` says, as it is sent."""
    return _JSON_LINES if json_bytes is None else _BYTES_LINES % json_bytes


def _check_size(response: ModelInferResponse, wanted: BinaryWanted) -> None:
    """Refuse what would hold everything else in this process up while it is written."""
    tensors = zip(response.outputs, response.raw_output_contents, strict=True)
    size = sum(len(raw) for tensor, raw in tensors if not wanted(tensor.name))
    if size > MOST_JSON_BYTES:  # guard: json-output-bounded
        raise InvalidRequestError(
            f"the outputs have {size} bytes, and JSON is written of {MOST_JSON_BYTES} at most; ask for them with "
            "binary_data: true"
        )


def _output(tensor: OutputTensor, raw: bytes, wanted: BinaryWanted, elements: Elements) -> str:
    described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    parameters = {name: _value(parameter) for name, parameter in tensor.parameters.items()}
    if _REGION in parameters:
        return _open({**described, "parameters": parameters}) + "}"
    if _is_behind(tensor, wanted):
        return _open({**described, "parameters": {**parameters, "binary_data_size": len(raw)}}) + "}"
    if parameters:
        described["parameters"] = parameters
    return f'{_open(described)},"data":{elements(tensor, raw)}}}'


def _open(fields: Mapping[str, Any]) -> str:
    """A JSON object that more can be written to: without the brace at its end."""
    return json.dumps(fields, separators=(",", ":"))[:-1]


def _is_behind(tensor: OutputTensor, wanted: BinaryWanted) -> bool:
    return wanted(tensor.name) and _REGION not in tensor.parameters


def _elements(tensor: OutputTensor, raw: bytes) -> str:
    return elements_text(json_from_raw(raw, DATATYPES[tensor.datatype], tensor=tensor.name))


def _value(parameter: InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)
