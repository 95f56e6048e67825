"""The message that answers an infer request, as JSON, with the tensors behind it that were wanted so."""

import json
from collections.abc import Mapping
from typing import Any

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import InferParameter, ModelInferResponse
from inferry_server.errors import InvalidRequestError
from inferry_server.http.infer_request import HEADER_LENGTH, MOST_JSON_BYTES, BinaryWanted
from inferry_server.http.json_tensors import json_from_raw


def write_infer_response(message: bytes, wanted: BinaryWanted) -> tuple[bytes, dict[str, str]]:
    """The body, and its headers.

    Args:
        message: a ModelInferResponse.
        wanted: which outputs go behind the JSON.

    Raises:
        DecodingError: a text that JSON cannot carry.
        InvalidRequestError: more than JSON should carry.
    """
    response = ModelInferResponse.FromString(message)
    _check_size(response, wanted)
    binary: list[bytes] = []
    outputs = [
        _output(tensor, raw, binary if wanted(tensor.name) else None)
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    ]
    answer: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        answer = {"id": response.id, **answer}
    if response.parameters:
        answer["parameters"] = {name: _value(parameter) for name, parameter in response.parameters.items()}
    text = json.dumps({**answer, "outputs": outputs}, separators=(",", ":")).encode()
    if not binary:
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join((text, *binary)), headers


def _check_size(response: ModelInferResponse, wanted: BinaryWanted) -> None:
    """Refuse what would hold everything else in this process up while it is written."""
    tensors = zip(response.outputs, response.raw_output_contents, strict=True)
    size = sum(len(raw) for tensor, raw in tensors if not wanted(tensor.name))
    if size > MOST_JSON_BYTES:  # guard: json-output-bounded
        raise InvalidRequestError(
            f"the outputs have {size} bytes, and JSON is written of {MOST_JSON_BYTES} at most; ask for them with "
            "binary_data: true"
        )


def _output(tensor: ModelInferResponse.InferOutputTensor, raw: bytes, binary: list[bytes] | None) -> Mapping[str, Any]:
    described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    parameters = {name: _value(parameter) for name, parameter in tensor.parameters.items()}
    if "shared_memory_region" in parameters:
        return {**described, "parameters": parameters}
    if binary is not None:
        binary.append(raw)
        return {**described, "parameters": {**parameters, "binary_data_size": len(raw)}}
    if parameters:
        described["parameters"] = parameters
    return {**described, "data": json_from_raw(raw, DATATYPES[tensor.datatype], tensor=tensor.name)}


def _value(parameter: InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)
