"""ModelInferRequest to arrays.

Everything that can be wrong with a request is found here, before the queue. The order of the checks
is part of the protocol: a request with two faults always hears of the same one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inferry_proto.datatypes import Arrays
from inferry_proto.open_inference_pb2 import InferParameter, ModelInferRequest
from inferry_proto.variants import ALL, EXPECTED, NONE, PARAMETER, Accepted, read_accepted
from inferry_server.errors import InvalidRequestError, SignatureMismatchError, TooManyTextsError
from inferry_server.signature import Signature, TensorSpec
from inferry_server.wire.classification import CLASSIFIABLE
from inferry_server.wire.elements import element_count
from inferry_server.wire.inputs import MOST_TEXTS, find_input_data, read_tensor
from inferry_server.wire.regions import read_region
from inferry_server.wire.shared_memory import RegionSlice, SharedMemoryRegions

# What each known request parameter carries; others without the reserved prefix are the caller's own.
_PARAMETER_KINDS = {"timeout": ("int64_param",), "priority": ("uint64_param", "int64_param")}
_RESERVED_PREFIX = "triton_"
_ACCEPTED_RESERVED = {"triton_enable_empty_final_response"}  # perf_analyzer sends it always


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the caller asked for.

    Attributes:
        classes: 0 for the tensor itself, else the most probable classes of each row, so many.
        destination: the shared memory it goes to; None: into the response.
    """

    spec: TensorSpec
    classes: int = 0
    destination: RegionSlice | None = None


@dataclass(frozen=True)
class DecodedRequest:
    """A request that can be computed.

    Attributes:
        inputs: by name, in the model's order, viewing the message's bytes where they came raw, or shared memory.
        order: of the inputs in the request.
        rows: N; 1 for a model without batch dimension.
        outputs: what the caller asked for, in order.
        timeout_s: from the `timeout` parameter; None where there is none.
        priority: from the `priority` parameter; 0 where there is none.
    """

    inputs: Arrays
    order: Sequence[str]
    rows: int
    outputs: Sequence[RequestedOutput]
    timeout_s: float | None
    priority: int


def decode_infer_request(
    request: ModelInferRequest,
    signature: Signature,
    *,
    model: str,
    max_request_rows: int,
    regions: SharedMemoryRegions,
    most_texts: int = MOST_TEXTS,
) -> DecodedRequest:
    """Check a request against the model that it names, and take its tensors out.

    Args:
        request: with a model that is ready.
        signature: the model's.
        model: named in errors.
        max_request_rows: the most rows; 0 for a model without batch dimension.
        regions: where tensors in shared memory are.
        most_texts: as of `read_tensor`; of a classification too, where the shape of its output is known.

    Raises:
        DecodingError: bytes do not fit their shape and datatype.
        SignatureMismatchError: tensors that the model does not take or give.
        InvalidRequestError: parameters, a request that contradicts itself, or too many texts.
    """
    _check_parameters(request.parameters)  # guard: order-checks-parameters
    if (repeated := _first_repeated(tensor.name for tensor in request.inputs)) is not None:  # guard: request-no-input
        raise InvalidRequestError(f"input {repeated!r} is there more than once; {_takes(signature, model)}")
    if (repeated := _first_repeated(tensor.name for tensor in request.outputs)) is not None:
        raise InvalidRequestError(f"requested output {repeated!r} is there more than once")
    data = find_input_data(request, regions)
    destinations = _check_output_parameters(request, regions)
    outputs = _requested_outputs(request, signature, destinations, model)
    specs = _match_inputs(request, signature, model)
    rows = _count_rows(request, specs, model, max_request_rows) if max_request_rows else 1
    for tensor, spec in zip(request.inputs, specs, strict=True):
        _check_datatype(tensor, spec, model)  # guard: order-checks-datatypes
    for tensor, spec in zip(request.inputs, specs, strict=True):
        _check_shape(tensor, spec, model)
    came = {
        spec.name: read_tensor(tensor, tensor_data, spec, most_texts=most_texts)
        for tensor, tensor_data, spec in zip(request.inputs, data, specs, strict=True)
    }
    _check_room(outputs, rows if max_request_rows else None, model)
    for output in outputs:
        if output.classes and (classes := _class_count(output.spec, batched=max_request_rows > 0)) is not None:
            check_classes(output, rows, classes, most_texts)
    inputs = {spec.name: came[spec.name] for spec in signature.inputs}  # guard: request-inputs-ordered
    return DecodedRequest(
        inputs, tuple(came), rows, outputs, _timeout_s(request.parameters), _priority(request.parameters)
    )


def _check_parameters(parameters: Mapping[str, InferParameter]) -> None:
    for name, parameter in parameters.items():
        if name.startswith(_RESERVED_PREFIX) and name not in _ACCEPTED_RESERVED:
            raise InvalidRequestError(
                f"parameter {name!r} is unknown; of names beginning with {_RESERVED_PREFIX!r} "
                f"this server knows {', '.join(sorted(_ACCEPTED_RESERVED))}"
            )
        expected, came = _PARAMETER_KINDS.get(name), parameter.WhichOneof("parameter_choice")
        if expected is not None and came not in expected:
            raise InvalidRequestError(
                f"parameter {name!r} must be an {' or an '.join(expected)}, not {came or 'empty'}"
            )
    if "timeout" in parameters and (timeout_us := parameters["timeout"].int64_param) < 0:
        raise InvalidRequestError(f"parameter 'timeout' must be at least 0 microseconds, not {timeout_us}")
    accepted_variants(parameters)  # guard: request-accept-variant
    if (priority := _priority(parameters)) < 0:  # guard: request-priority-sign
        raise InvalidRequestError(f"parameter 'priority' must be at least 0, not {priority}")


def accepted_variants(parameters: Mapping[str, InferParameter]) -> Accepted | None:
    """The precisions whose variants may answer a request; None where it does not say.

    Raises:
        InvalidRequestError: the parameter says anything else.
    """
    if PARAMETER not in parameters:
        return None
    parameter = parameters[PARAMETER]
    match parameter.WhichOneof("parameter_choice"):
        case "bool_param":
            return ALL if parameter.bool_param else NONE
        case "string_param":
            return accepted_by(parameter.string_param)
        case came:
            raise InvalidRequestError(f"parameter {PARAMETER!r} is {came or 'empty'}; expected {EXPECTED}")


def accepted_by(text: str) -> Accepted:
    """The precisions that a text names.

    Raises:
        InvalidRequestError: it is none of the texts that do.
    """
    try:
        return read_accepted(text)
    except ValueError as error:
        raise InvalidRequestError(f"parameter {PARAMETER!r} is {error}") from None


def _timeout_s(parameters: Mapping[str, InferParameter]) -> float | None:
    timeout_us = parameters["timeout"].int64_param if "timeout" in parameters else 0
    return timeout_us / 1e6 if timeout_us else None  # 0 is how clients spell "none"


def _priority(parameters: Mapping[str, InferParameter]) -> int:
    if "priority" not in parameters:
        return 0
    parameter = parameters["priority"]  # of either kind; the one that did not come is 0
    return parameter.uint64_param or parameter.int64_param


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _takes(signature: Signature, model: str) -> str:
    return f"model {model!r} takes {', '.join(repr(spec.name) for spec in signature.inputs)}"


def _check_output_parameters(request: ModelInferRequest, regions: SharedMemoryRegions) -> dict[str, RegionSlice]:
    """The shared memory of each output that goes there."""
    destinations: dict[str, RegionSlice] = {}
    for tensor in request.outputs:
        what = f"requested output {tensor.name!r}"
        destination = read_region(tensor.parameters, regions, tensor=what)
        if destination is not None:
            destinations[tensor.name] = destination
        if "classification" not in tensor.parameters:
            continue
        parameter = tensor.parameters["classification"]
        if parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 1:
            came = getattr(parameter, parameter.WhichOneof("parameter_choice") or "", "nothing")
            raise InvalidRequestError(
                f"{what}: parameter 'classification' must be an int64_param above 0, not {came!r}"
            )
        if destination is not None:
            raise InvalidRequestError(f"{what}: a classification cannot go to shared memory; expected one of them")
    return destinations


def _requested_outputs(
    request: ModelInferRequest, signature: Signature, destinations: Mapping[str, RegionSlice], model: str
) -> list[RequestedOutput]:
    known = {spec.name: spec for spec in signature.outputs}
    for tensor in request.outputs:
        if tensor.name not in known:
            raise SignatureMismatchError(
                f"output {tensor.name!r} was requested of model {model!r}, which gives {', '.join(map(repr, known))}"
            )
    if not request.outputs:
        return [RequestedOutput(spec) for spec in signature.outputs]
    return [
        _requested_output(tensor, known[tensor.name], destinations.get(tensor.name), model)
        for tensor in request.outputs
    ]


def _requested_output(
    tensor: ModelInferRequest.InferRequestedOutputTensor,
    spec: TensorSpec,
    destination: RegionSlice | None,
    model: str,
) -> RequestedOutput:
    if "classification" not in tensor.parameters:
        return RequestedOutput(spec, destination=destination)
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
    if len(came) != len(by_name):
        missing = [name for name in by_name if name not in came]
        surplus = [name for name in came if name not in by_name]
        problem = f"input {missing[0]!r} is missing" if missing else f"input {surplus[0]!r} is one too many"
        raise SignatureMismatchError(f"{problem}, {len(came)} came; {_takes(signature, model)}")
    for name in came:
        if name not in by_name:  # guard: request-names-looked
            raise SignatureMismatchError(f"input {name!r} is unknown; {_takes(signature, model)}")
    return [by_name[name] for name in came]


def _count_rows(request: ModelInferRequest, specs: Sequence[TensorSpec], model: str, max_request_rows: int) -> int:
    counts: dict[str, int] = {}
    for tensor, spec in zip(request.inputs, specs, strict=True):
        if not tensor.shape:
            raise SignatureMismatchError(
                f"input {tensor.name!r} of model {model!r} has no shape; expected {list(spec.shape)}"
            )
        counts[tensor.name] = tensor.shape[0]
    (first, rows), *others = counts.items()
    for name, other_rows in others:
        if other_rows != rows:  # guard: request-rows-agree
            raise SignatureMismatchError(
                f"input {name!r} has {other_rows} rows and input {first!r} has {rows}; all must have as many"
            )
    if rows < 1:  # guard: request-rows
        raise SignatureMismatchError(f"input {first!r} has {rows} rows; expected 1 to {max_request_rows}")
    if rows > max_request_rows:  # guard: request-rows-bounded
        raise InvalidRequestError(f"the request has {rows} rows; model {model!r} takes up to {max_request_rows}")
    return rows


def _check_datatype(tensor: ModelInferRequest.InferInputTensor, spec: TensorSpec, model: str) -> None:
    if tensor.datatype != spec.datatype.name:  # guard: request-datatypes-fit
        raise SignatureMismatchError(
            f"input {tensor.name!r} of model {model!r} has datatype {tensor.datatype!r}; expected {spec.datatype.name}"
        )


def _check_shape(tensor: ModelInferRequest.InferInputTensor, spec: TensorSpec, model: str) -> None:
    came = tuple(tensor.shape)
    expected_shape = (-1,) * len(came) if spec.any_rank else spec.shape
    fits = len(came) == len(expected_shape) and all(
        axis >= 0 and expected in (-1, axis) for axis, expected in zip(came, expected_shape, strict=True)
    )
    if not fits:  # guard: request-shapes-fit
        raise SignatureMismatchError(
            f"input {tensor.name!r} of model {model!r} has shape {list(came)}; expected {spec.shape_text}"
        )


def check_classes(output: RequestedOutput, rows: int, classes: int, most_texts: int) -> None:
    """Refuse a classification of so many classes that to write it takes long: each becomes a text.

    Args:
        output: that was asked for as a classification.
        rows: of it.
        classes: that each row has.
        most_texts: that it may have.

    Raises:
        TooManyTextsError: it has more.
    """
    count = rows * min(output.classes, classes)
    if count > most_texts:  # guard: request-classes-counted
        raise TooManyTextsError(f"the classification of output {output.spec.name!r}", limit=most_texts, actual=count)


def _class_count(spec: TensorSpec, *, batched: bool) -> int | None:
    axes = spec.shape[1:] if batched else spec.shape
    return None if spec.any_rank or -1 in axes else element_count(axes)


def _check_room(outputs: Sequence[RequestedOutput], rows: int | None, model: str) -> None:
    """Refuse shared memory that is too small, as far as an output's size is known before it is computed.

    Args:
        outputs: what was asked for.
        rows: N; None for a model without batch dimension.
        model: named in errors.
    """
    for output in outputs:
        if output.destination is None or output.spec.datatype.dtype.hasobject or output.spec.any_rank:
            continue
        shape = output.spec.shape if rows is None else (rows, *output.spec.shape[1:])
        needed = element_count(shape) * output.spec.datatype.dtype.itemsize
        if -1 not in shape and needed > len(output.destination.memory):
            raise InvalidRequestError(
                f"requested output {output.spec.name!r} of model {model!r} takes {needed} bytes for shape "
                f"{list(shape)}; shared memory region {output.destination.region!r} was given with "
                f"{len(output.destination.memory)} for it"
            )
