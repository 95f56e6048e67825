"""ModelInferRequest to arrays.

Everything that can be wrong with a request is found here, before the queue. The order of the checks
is part of the protocol: a request with two faults always hears of the same one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.open_inference_pb2 import InferParameter, ModelInferRequest
from inferry_server.classification import CLASSIFIABLE
from inferry_server.errors import DecodingError, InvalidRequestError, SignatureMismatchError
from inferry_server.signature import Signature, TensorSpec
from inferry_server.tensor_bytes import bytes_to_elements

Arrays = Mapping[str, NDArray[Any]]

# What each known request parameter carries; others without the reserved prefix are the caller's own.
_PARAMETER_KINDS = {"timeout": "int64_param", "priority": "uint64_param"}
_RESERVED_PREFIX = "triton_"
_ACCEPTED_RESERVED = {"triton_enable_empty_final_response"}  # perf_analyzer sends it always


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the caller asked for.

    Attributes:
        classes: 0 for the tensor itself, else the most probable classes of each row, so many.
    """

    spec: TensorSpec
    classes: int = 0


@dataclass(frozen=True)
class DecodedRequest:
    """A request that can be computed.

    Attributes:
        inputs: by name, viewing the message's bytes where they came raw.
        rows: N; 1 for a model without batch dimension.
        outputs: what the caller asked for, in order.
        timeout_s: from the `timeout` parameter; None where there is none.
        priority: from the `priority` parameter; 0 where there is none.
    """

    inputs: Arrays
    rows: int
    outputs: Sequence[RequestedOutput]
    timeout_s: float | None
    priority: int


def decode_infer_request(
    request: ModelInferRequest, signature: Signature, *, model: str, max_request_rows: int
) -> DecodedRequest:
    """Check a request against the model that it names, and take its tensors out.

    Args:
        request: with a model that is ready.
        signature: the model's.
        model: named in errors.
        max_request_rows: the most rows; 0 for a model without batch dimension.

    Raises:
        DecodingError: raw bytes do not fit their shape and datatype.
        SignatureMismatchError: tensors that the model does not take or give.
        InvalidRequestError: parameters, or a request that contradicts itself.
    """
    _check_parameters(request.parameters)
    _refuse_repeated("input", (tensor.name for tensor in request.inputs))
    _refuse_repeated("requested output", (tensor.name for tensor in request.outputs))
    _check_data_present(request)
    _check_output_parameters(request)
    outputs = _requested_outputs(request, signature, model)
    specs = _match_inputs(request, signature, model)
    rows = _count_rows(request, model, max_request_rows) if max_request_rows else 1
    for tensor, spec in zip(request.inputs, specs, strict=True):
        _check_datatype(tensor, spec, model)
    for tensor, spec in zip(request.inputs, specs, strict=True):
        _check_shape(tensor, spec, model)
    inputs = {
        spec.name: _read_tensor(request, position, spec)
        for position, spec in enumerate(specs)
    }  # fmt: skip
    return DecodedRequest(inputs, rows, outputs, _timeout_s(request.parameters), _priority(request.parameters))


def _check_parameters(parameters: Mapping[str, InferParameter]) -> None:
    for name, parameter in parameters.items():
        if name.startswith(_RESERVED_PREFIX) and name not in _ACCEPTED_RESERVED:
            raise InvalidRequestError(
                f"parameter {name!r} is unknown; of names beginning with {_RESERVED_PREFIX!r} "
                f"this server knows {', '.join(sorted(_ACCEPTED_RESERVED))}"
            )
        expected, came = _PARAMETER_KINDS.get(name), parameter.WhichOneof("parameter_choice")
        if expected is not None and came != expected:
            raise InvalidRequestError(f"parameter {name!r} must be an {expected}, not {came or 'empty'}")
    if "timeout" in parameters and (timeout_us := parameters["timeout"].int64_param) < 0:
        raise InvalidRequestError(f"parameter 'timeout' must be at least 0 microseconds, not {timeout_us}")


def _timeout_s(parameters: Mapping[str, InferParameter]) -> float | None:
    timeout_us = parameters["timeout"].int64_param if "timeout" in parameters else 0
    return timeout_us / 1e6 if timeout_us else None  # 0 is how clients spell "none"


def _priority(parameters: Mapping[str, InferParameter]) -> int:
    return parameters["priority"].uint64_param if "priority" in parameters else 0


def _refuse_repeated(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidRequestError(f"{what} {name!r} is there more than once")
        seen.add(name)


def _check_data_present(request: ModelInferRequest) -> None:
    raw_count = len(request.raw_input_contents)
    for tensor in request.inputs:
        if "shared_memory_region" in tensor.parameters:
            raise InvalidRequestError(f"input {tensor.name!r} is in shared memory, which this server does not offer")
        if raw_count and tensor.HasField("contents"):
            raise InvalidRequestError(
                f"input {tensor.name!r} has contents and raw_input_contents; a request has one or the other"
            )
        if not raw_count and not tensor.HasField("contents"):
            raise InvalidRequestError(
                f"input {tensor.name!r} has no data; expected raw_input_contents for every input, or contents in each"
            )
    if raw_count and raw_count != len(request.inputs):
        names = ", ".join(repr(tensor.name) for tensor in request.inputs)
        raise InvalidRequestError(
            f"{raw_count} raw_input_contents came for {len(request.inputs)} inputs ({names}); expected one for each"
        )


def _check_output_parameters(request: ModelInferRequest) -> None:
    for tensor in request.outputs:
        if "shared_memory_region" in tensor.parameters:
            raise InvalidRequestError(
                f"requested output {tensor.name!r}: parameter 'shared_memory_region' is not offered by this server"
            )
        if "classification" not in tensor.parameters:
            continue
        parameter = tensor.parameters["classification"]
        if parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 1:
            came = getattr(parameter, parameter.WhichOneof("parameter_choice") or "", "nothing")
            raise InvalidRequestError(
                f"requested output {tensor.name!r}: parameter 'classification' must be an int64_param above 0, "
                f"not {came!r}"
            )


def _requested_outputs(request: ModelInferRequest, signature: Signature, model: str) -> list[RequestedOutput]:
    known = {spec.name: spec for spec in signature.outputs}
    for tensor in request.outputs:
        if tensor.name not in known:
            raise SignatureMismatchError(
                f"output {tensor.name!r} was requested of model {model!r}, which gives {', '.join(map(repr, known))}"
            )
    if not request.outputs:
        return [RequestedOutput(spec) for spec in signature.outputs]
    return [_requested_output(tensor, known[tensor.name], model) for tensor in request.outputs]


def _requested_output(
    tensor: ModelInferRequest.InferRequestedOutputTensor, spec: TensorSpec, model: str
) -> RequestedOutput:
    if "classification" not in tensor.parameters:
        return RequestedOutput(spec)
    if spec.datatype.name not in CLASSIFIABLE:
        raise SignatureMismatchError(
            f"output {spec.name!r} of model {model!r} is {spec.datatype.name}; "
            f"classification takes {', '.join(CLASSIFIABLE)}"
        )
    return RequestedOutput(spec, tensor.parameters["classification"].int64_param)


def _match_inputs(request: ModelInferRequest, signature: Signature, model: str) -> list[TensorSpec]:
    """The spec of each input of the request, in the request's order."""
    by_name = {spec.name: spec for spec in signature.inputs}
    came = [tensor.name for tensor in request.inputs]
    expectation = f"model {model!r} takes {', '.join(map(repr, by_name))}"
    if len(came) != len(by_name):
        missing = [name for name in by_name if name not in came]
        problem = f"input {missing[0]!r} is missing" if missing else f"{len(came)} inputs came"
        raise SignatureMismatchError(f"{problem}; {expectation}")
    for name in came:
        if name not in by_name:
            raise SignatureMismatchError(f"input {name!r} is unknown; {expectation}")
    return [by_name[name] for name in came]


def _count_rows(request: ModelInferRequest, model: str, max_request_rows: int) -> int:
    counts: dict[str, int] = {}
    for tensor in request.inputs:
        if not tensor.shape:
            raise SignatureMismatchError(f"input {tensor.name!r} of model {model!r} has no shape")
        counts[tensor.name] = tensor.shape[0]
    (first, rows), *others = counts.items()
    for name, other_rows in others:
        if other_rows != rows:
            raise SignatureMismatchError(
                f"input {name!r} has {other_rows} rows and input {first!r} has {rows}; all must have as many"
            )
    if rows < 1:
        raise SignatureMismatchError(f"input {first!r} has {rows} rows; expected 1 to {max_request_rows}")
    if rows > max_request_rows:
        raise InvalidRequestError(f"the request has {rows} rows; model {model!r} takes up to {max_request_rows}")
    return rows


def _check_datatype(tensor: ModelInferRequest.InferInputTensor, spec: TensorSpec, model: str) -> None:
    if tensor.datatype != spec.datatype.name:
        raise SignatureMismatchError(
            f"input {tensor.name!r} of model {model!r} has datatype {tensor.datatype!r}; expected {spec.datatype.name}"
        )


def _check_shape(tensor: ModelInferRequest.InferInputTensor, spec: TensorSpec, model: str) -> None:
    came = tuple(tensor.shape)
    fits = len(came) == len(spec.shape) and all(
        axis >= 0 and expected in (-1, axis) for axis, expected in zip(came, spec.shape, strict=True)
    )
    if not fits:
        raise SignatureMismatchError(
            f"input {tensor.name!r} of model {model!r} has shape {list(came)}; expected {list(spec.shape)}"
        )


def _read_tensor(request: ModelInferRequest, position: int, spec: TensorSpec) -> NDArray[Any]:
    tensor = request.inputs[position]
    shape = tuple(tensor.shape)
    if request.raw_input_contents:
        return _from_raw(request.raw_input_contents[position], shape, spec)
    return _from_contents(tensor, shape, spec)


def _from_raw(data: bytes, shape: tuple[int, ...], spec: TensorSpec) -> NDArray[Any]:
    count = _element_count(shape)
    if spec.datatype.dtype.hasobject:
        return _elements(data, count, spec).reshape(shape)
    expected = count * spec.datatype.dtype.itemsize
    if len(data) != expected:
        raise DecodingError(
            f"input {spec.name!r} has {len(data)} bytes; shape {list(shape)} of {spec.datatype.name} takes {expected}"
        )
    return np.frombuffer(data, spec.datatype.dtype).reshape(shape)


def _elements(data: bytes, count: int, spec: TensorSpec) -> NDArray[np.object_]:
    try:
        elements = bytes_to_elements(data, count)
    except ValueError as error:
        raise DecodingError(f"input {spec.name!r}: {error}") from None
    return _texts(elements, spec)


def _from_contents(
    tensor: ModelInferRequest.InferInputTensor, shape: tuple[int, ...], spec: TensorSpec
) -> NDArray[Any]:
    field = spec.datatype.contents_field
    if field is None:
        raise DecodingError(f"input {spec.name!r}: {spec.datatype.name} travels only in raw_input_contents")
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if filled not in ([field], []):
        raise DecodingError(f"input {spec.name!r} of {spec.datatype.name} has {', '.join(filled)}; expected {field}")
    values = getattr(tensor.contents, field)
    count = _element_count(shape)
    if len(values) != count:
        raise DecodingError(f"input {spec.name!r} has {len(values)} elements; shape {list(shape)} takes {count}")
    array = _convert(values, spec)
    return (_texts(array, spec) if spec.datatype.dtype.hasobject else array).reshape(shape)


def _convert(values: Sequence[Any], spec: TensorSpec) -> NDArray[Any]:
    array = np.empty(len(values), spec.datatype.dtype)
    try:
        array[:] = values  # narrow integers that do not fit are an OverflowError, not a wrap-around
    except OverflowError as error:
        raise DecodingError(f"input {spec.name!r}: {error}") from None
    return array


def _texts(elements: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """BYTES as ONNX Runtime takes them: its strings are text."""
    texts = np.empty(len(elements), dtype=object)
    for i, element in enumerate(elements):
        try:
            texts[i] = element.decode()
        except UnicodeDecodeError as error:
            raise DecodingError(f"input {spec.name!r}: element {i} of BYTES is not UTF-8 text: {error}") from None
    return texts


def _element_count(shape: Sequence[int]) -> int:
    count = 1  # not numpy's prod: a hostile shape must not wrap around
    for axis in shape:
        count *= axis
    return count
