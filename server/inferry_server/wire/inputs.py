"""The data of a request's inputs: where it is, and as arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.errors import DecodingError, InvalidRequestError, TooManyTextsError
from inferry_server.signature import TensorSpec
from inferry_server.wire.elements import bytes_to_elements, element_count
from inferry_server.wire.regions import read_region
from inferry_server.wire.shared_memory import RegionSlice, SharedMemoryRegions

_MOST_BYTES, _MOST_AXES = 1 << 63, 64  # of an array

MOST_TEXTS = 65_536
"""Elements of BYTES in a tensor, where nobody says otherwise: reading one takes as long as reading a field."""

# Raw bytes of the message, shared memory, or None: the typed contents of the tensor itself.
InputData = bytes | RegionSlice | None


def find_input_data(request: ModelInferRequest, regions: SharedMemoryRegions) -> list[InputData]:
    """Where the data of each input is, in the request's order.

    Inputs in shared memory have no entry in raw_input_contents; the entries belong to the others, in order.

    Raises:
        InvalidRequestError: an input has no data or data twice, or its shared memory is not there.
    """
    raw_count = len(request.raw_input_contents)
    memory = [
        read_region(tensor.parameters, regions, tensor=f"input {tensor.name!r}") if tensor.parameters else None
        for tensor in request.inputs
    ]
    for tensor, region in zip(request.inputs, memory, strict=True):
        _check_data_once(tensor, region, raw_count)
    others = [tensor.name for tensor, region in zip(request.inputs, memory, strict=True) if region is None]
    if raw_count and raw_count != len(others):
        outside = " outside shared memory" if len(others) < len(memory) else ""
        raise InvalidRequestError(
            f"{raw_count} raw_input_contents came for {len(others)} inputs{outside} "
            f"({', '.join(map(repr, others))}); expected one for each"
        )
    raw = iter(request.raw_input_contents)
    return [region if region is not None else next(raw, None) for region in memory]


def read_tensor(
    tensor: ModelInferRequest.InferInputTensor, data: InputData, spec: TensorSpec, *, most_texts: int = MOST_TEXTS
) -> NDArray[Any]:
    """An input as an array; it views raw bytes and shared memory where their alignment allows.

    Args:
        tensor: of the spec's datatype and shape.
        data: from `find_input_data`.
        spec: what the model takes.
        most_texts: elements that a tensor of BYTES may have. Each becomes an object: some five bytes of a message would
            take a hundred bytes of memory and a microsecond.

    Raises:
        DecodingError: the data does not fit shape and datatype.
        TooManyTextsError: there are more elements; none of them was read.
    """
    shape = tuple(tensor.shape)
    if spec.datatype.dtype.hasobject and (count := element_count(shape)) > most_texts:  # guard: request-texts-counted
        raise TooManyTextsError(f"input {spec.name!r}", limit=most_texts, actual=count)
    if data is None:
        return _from_contents(tensor, shape, spec)
    if isinstance(data, RegionSlice):
        return _from_raw(data.memory.toreadonly(), shape, spec, where=f" in shared memory region {data.region!r}")
    return _from_raw(data, shape, spec)


def _check_data_once(tensor: ModelInferRequest.InferInputTensor, region: RegionSlice | None, raw_count: int) -> None:
    has_contents = tensor.HasField("contents")
    if region is not None:
        if has_contents:
            raise InvalidRequestError(
                f"input {tensor.name!r} has contents and is in shared memory; expected one of them"
            )
        return
    if raw_count and has_contents:  # guard: request-data-comes
        raise InvalidRequestError(
            f"input {tensor.name!r} has contents and raw_input_contents; a request has one or the other"
        )
    if not raw_count and not has_contents:
        raise InvalidRequestError(
            f"input {tensor.name!r} has no data; expected raw_input_contents for every input, or contents in each"
        )


def _from_raw(data: bytes | memoryview, shape: tuple[int, ...], spec: TensorSpec, *, where: str = "") -> NDArray[Any]:
    count = element_count(shape)
    if spec.datatype.dtype.hasobject:
        return _shaped(_elements(bytes(data), count, spec, where), shape, spec)
    expected = count * spec.datatype.dtype.itemsize
    if len(data) != expected:  # guard: request-bytes-fit
        raise DecodingError(
            f"input {spec.name!r} has {len(data)} bytes{where}; "
            f"shape {list(shape)} of {spec.datatype.name} takes {expected}"
        )
    array = _shaped(np.frombuffer(data, spec.datatype.dtype), shape, spec)
    return array if array.flags.aligned else array.copy()  # a region may be used from any offset


def _elements(data: bytes, count: int, spec: TensorSpec, where: str) -> NDArray[np.object_]:
    try:
        elements = bytes_to_elements(data, count)
    except ValueError as error:
        raise DecodingError(f"input {spec.name!r}{where}: {error}") from None
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
    count = element_count(shape)
    if len(values) != count:  # guard: request-typed-elements
        raise DecodingError(f"input {spec.name!r} has {len(values)} elements; shape {list(shape)} takes {count}")
    array = _convert(values, spec)
    return _shaped(_texts(array, spec) if spec.datatype.dtype.hasobject else array, shape, spec)


def _shaped(array: NDArray[Any], shape: tuple[int, ...], spec: TensorSpec) -> NDArray[Any]:
    try:
        return array.reshape(shape)
    except ValueError:  # as many elements, none of them perhaps: but axes that no array can have, or too many of them
        raise DecodingError(
            f"input {spec.name!r} has shape {list(shape)}; expected axes whose product, those of 0 left out, "
            f"is below {_MOST_BYTES:,} bytes, and at most {_MOST_AXES} of them"
        ) from None


def _convert(values: Sequence[Any], spec: TensorSpec) -> NDArray[Any]:
    try:
        # One after the other: an assignment would make a list of them first, at ten times their bytes. Narrow integers
        # that do not fit are an OverflowError, not a wrap-around.
        return np.fromiter(values, spec.datatype.dtype, len(values))
    except OverflowError as error:
        raise DecodingError(f"input {spec.name!r}: {error}") from None


def _texts(elements: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """BYTES as ONNX Runtime takes them: its strings are text."""
    texts = np.empty(len(elements), dtype=object)
    for i, element in enumerate(elements):
        try:
            texts[i] = element.decode()
        except UnicodeDecodeError as error:
            raise DecodingError(f"input {spec.name!r}: element {i} of BYTES is not UTF-8 text: {error}") from None
    return texts
