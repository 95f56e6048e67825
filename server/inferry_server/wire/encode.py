"""Arrays to ModelInferResponse."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import DATATYPES, Arrays, Datatype
from inferry_proto.open_inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from inferry_proto.variants import NAMED
from inferry_server.errors import InvalidRequestError
from inferry_server.signature import TensorSpec
from inferry_server.wire.classification import classify
from inferry_server.wire.decode import RequestedOutput, check_classes
from inferry_server.wire.elements import element_count, elements_to_bytes
from inferry_server.wire.inputs import MOST_TEXTS
from inferry_server.wire.regions import write_region
from inferry_server.wire.shared_memory import RegionSlice

UNBOUNDED = sys.maxsize
_BYTES = DATATYPES["BYTES"]
_MOST_SHAPES = 64  # remembered; outputs rarely have more
_VARINT_MORE = 0x80
_LENGTH_DELIMITED = 2  # the wire type of texts, bytes and messages
# As open_inference.proto numbers the fields.
_ID_TAG, _RAW_TAG = bytes([3 << 3 | _LENGTH_DELIMITED]), bytes([6 << 3 | _LENGTH_DELIMITED])


def encode_infer_response(
    request: ModelInferRequest,
    requested: Sequence[RequestedOutput],
    outputs: Arrays,
    *,
    version: str,
    labels: Mapping[str, Sequence[str]],
    batched: bool,
    most_texts: int = MOST_TEXTS,
    most_bytes: int = UNBOUNDED,
) -> ModelInferResponse:
    """The response to a request: the requested outputs, raw or in shared memory, with the request's id.

    Args:
        request: what is answered.
        requested: from decoding it.
        outputs: by name; the rows of this request.
        version: that answered.
        labels: of the classes of each output that has some.
        batched: whether the first axis counts rows; without, classes are looked for in the whole output.
        most_texts: that a classification may have.
        most_bytes: of the outputs that go into the response.

    Raises:
        TooManyTextsError: a classification has more.
        InvalidRequestError: an output is larger than the shared memory it was to go to, or all are larger than they
            may be.
    """
    response = ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    nbytes = 0
    for output in requested:
        array, datatype = outputs[output.spec.name], output.spec.datatype
        if output.classes:
            of_rows = batched and array.ndim > 0
            rows = array.reshape(len(array), math.prod(array.shape[1:])) if of_rows else array.reshape(1, -1)
            check_classes(output, *rows.shape, most_texts)
            own = labels.get(output.spec.name, ())  # guard: labels-own-output
            array, datatype = classify(rows, output.classes, own), _BYTES
            array = array if of_rows else array[0]
        tensor = response.outputs.add(name=output.spec.name, datatype=datatype.name, shape=array.shape)
        if output.destination is None:
            nbytes += array.nbytes
            _check_size(nbytes, most_bytes)
            raw = _raw_bytes(array, datatype)
            nbytes += len(raw) - array.nbytes  # which is that of pointers, where elements are texts
            _check_size(nbytes, most_bytes)
            response.raw_output_contents.append(raw)
        else:
            byte_size = _write(array, datatype, output.destination, output.spec.name)
            write_region(tensor.parameters, output.destination, byte_size=byte_size)
            response.raw_output_contents.append(b"")  # clients find the others' by position
    return response


class ResponseTemplate:
    """The responses to requests that ask alike, as bytes: ids, shapes and tensors are filled in.

    Args:
        model: the name to answer with.
        version: that answers.
        specs: the outputs asked for, in order; none of BYTES.
        most_bytes: of the outputs of one response.
    """

    def __init__(self, model: str, version: str, specs: Sequence[TensorSpec], most_bytes: int = UNBOUNDED) -> None:
        self._most_bytes = most_bytes
        self._head = ModelInferResponse(model_name=model, model_version=version).SerializeToString()
        self._specs = specs
        self._outputs = [(spec.name, spec.datatype.dtype) for spec in specs]
        self._tensors: dict[tuple[tuple[int, ...], ...], tuple[bytes, list[bytes]]] = {}

    def encode(self, request_id: str, outputs: Arrays) -> bytes:
        """One response.

        Args:
            request_id: of the request.
            outputs: by name; the rows of this request.

        Raises:
            InvalidRequestError: they have more bytes than they may.
        """
        arrays: list[NDArray[Any]] = []
        shapes: tuple[tuple[int, ...], ...] = ()
        for name, dtype in self._outputs:
            array = outputs[name]
            if array.dtype != dtype or not array.flags.c_contiguous:
                array = np.ascontiguousarray(array, dtype)
            arrays.append(array)
            shapes += (array.shape,)
        tensors, prefixes = self._tensors.get(shapes) or self._describe(shapes)
        pieces: list[Any] = [self._head]
        if request_id:
            encoded = request_id.encode()
            pieces += (_ID_TAG, varint(len(encoded)), encoded)
        pieces.append(tensors)
        for prefix, array in zip(prefixes, arrays, strict=True):
            pieces += (prefix, array)
        return b"".join(pieces)

    def encode_rows(self, request_ids: Sequence[tuple[str, int]], outputs: Arrays) -> list[bytes]:
        """The responses to requests of one row each.

        Args:
            request_ids: of each, and which row is its.
            outputs: by name; of all rows.

        Raises:
            InvalidRequestError: as `encode`.
        """
        raws: list[tuple[bytes, int]] = []
        shapes: tuple[tuple[int, ...], ...] = ()
        for name, dtype in self._outputs:
            array = outputs[name]
            raws.append((np.ascontiguousarray(array, dtype).tobytes(), array.size // len(array) * dtype.itemsize))
            shapes += ((1, *array.shape[1:]),)
        tensors, prefixes = self._tensors.get(shapes) or self._describe(shapes)
        messages: list[bytes] = []
        for request_id, row in request_ids:
            pieces: list[Any] = [self._head]
            if request_id:
                encoded = request_id.encode()
                pieces += (_ID_TAG, varint(len(encoded)), encoded)
            pieces.append(tensors)
            for prefix, (raw, size) in zip(prefixes, raws, strict=True):
                pieces += (prefix, raw[row * size : (row + 1) * size])
            messages.append(b"".join(pieces))
        return messages

    def _describe(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[bytes, list[bytes]]:
        """What stands before the tensors, and before the data of each."""
        response, prefixes = ModelInferResponse(), []
        sizes = [
            element_count(shape) * spec.datatype.dtype.itemsize for spec, shape in zip(self._specs, shapes, strict=True)
        ]
        _check_size(sum(sizes), self._most_bytes)  # here: shapes that are known have passed
        for spec, shape, size in zip(self._specs, shapes, sizes, strict=True):
            response.outputs.add(name=spec.name, datatype=spec.datatype.name, shape=shape)
            prefixes.append(_RAW_TAG + varint(size))
        if len(self._tensors) >= _MOST_SHAPES:
            self._tensors.clear()
        described = self._tensors[shapes] = (response.SerializeToString(), prefixes)  # guard: cost-stands-before
        return described


def response_template(
    model: str, version: str, requested: Sequence[RequestedOutput], most_bytes: int = UNBOUNDED
) -> ResponseTemplate | None:
    """The template for plain outputs; None where a response needs more than its tensors' bytes."""
    plain = all(
        not output.classes and output.destination is None and not output.spec.datatype.dtype.hasobject
        for output in requested
    )
    specs = [output.spec for output in requested]
    return ResponseTemplate(model, version, specs, most_bytes) if plain else None


def _check_size(nbytes: int, most: int) -> None:
    """Refuse outputs that are too large, of which the shapes of inputs told nothing."""
    if nbytes > most:  # guard: answers-bounded
        raise InvalidRequestError(
            f"the outputs have {nbytes} bytes; expected at most {most} (setting max_reply_bytes): ask for less at once"
        )


@lru_cache(maxsize=64)  # under overload it is asked for with every response
def answered_by_variant(model: str, version: str, precision: str) -> bytes:
    """What is written behind a response that a variant has computed: fields that come again replace those before.

    Args:
        model: the variant's name.
        version: of it.
        precision: of it.
    """
    named = {NAMED: InferParameter(string_param=precision)}
    return ModelInferResponse(model_name=model, model_version=version, parameters=named).SerializeToString()


def varint(value: int) -> bytes:
    """A length as protobuf writes it."""
    pieces = bytearray()
    while value >= _VARINT_MORE:
        pieces.append(value & ~_VARINT_MORE & 0xFF | _VARINT_MORE)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def submessage(number: int, more: bytes = b"") -> Callable[[bytes], bytes]:
    """What puts a message into the field of another one that has nothing else.

    Args:
        number: of the field.
        more: fields that the inner message gets behind its own: bytes of messages that follow one another are
            one message with the fields of both.
    """
    tag = bytes([number << 3 | _LENGTH_DELIMITED])
    return lambda message: b"".join((tag, varint(len(message) + len(more)), message, more))


def _write(array: NDArray[Any], datatype: Datatype, destination: RegionSlice, name: str) -> int:
    """Put a tensor into shared memory; returns its size in bytes."""
    if datatype.dtype.hasobject:
        flat = np.frombuffer(elements_to_bytes(array), np.uint8)
    else:
        flat = np.ascontiguousarray(array, datatype.dtype).reshape(-1).view(np.uint8)
    room = len(destination.memory)
    if flat.nbytes > room:  # guard: shared-memory-output
        raise InvalidRequestError(
            f"output {name!r} has {flat.nbytes} bytes; shared memory region {destination.region!r} "
            f"was given with {room} for it"
        )
    destination.memory[: flat.nbytes] = flat.data
    return flat.nbytes


def _raw_bytes(array: NDArray[Any], datatype: Datatype) -> bytes:
    if datatype.dtype.hasobject:
        return elements_to_bytes(array)
    return array.astype(datatype.dtype, copy=False).tobytes()
