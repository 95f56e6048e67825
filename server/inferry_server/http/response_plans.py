"""Replies to infer requests over HTTP by the plan of an earlier one: the bytes that writing in full makes, for less.

What a model replies to requests of a kind differs in its tensors' data and in its id; all else is the same again and
again, in the message as in the JSON. So the JSON between them is kept, by what the message says besides.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferResponse
from inferry_server.http.infer_request import BinaryWanted
from inferry_server.http.infer_response import (
    OutputTensor,
    WrittenReply,
    response_json,
    write_infer_response,
    written_reply,
)
from inferry_server.http.json_tensors import elements_text, json_from_raw

_MOST_PLANS = 1024
_LARGEST_REST = 4096  # bytes of a message without id and data
_LENGTH_DELIMITED, _WIRE_TYPE, _VARINT_MORE = 2, 0b111, 0x80
_ID, _RAW = (
    ModelInferResponse.DESCRIPTOR.fields_by_name[name].number << 3 | _LENGTH_DELIMITED
    for name in ("id", "raw_output_contents")
)
_DATA = "\0"  # where the data of an output goes; JSON has no such character, but as \u0000


@dataclass(frozen=True, slots=True)
class _Plan:
    """How replies are written whose messages differ in id and data alone.

    Attributes:
        sizes: of the data of each output, in bytes.
        texts: JSON before, between and behind the data of the outputs that are not wanted as bytes.
        writers: of each output, what writes its data into the JSON; None: it goes behind it.
    """

    sizes: Sequence[int]
    texts: Sequence[str]
    writers: Sequence[Callable[[bytes], str] | None]

    def reply(self, request_id: str, raws: Sequence[bytes]) -> WrittenReply:
        """The reply; `raws` is the data of each output."""
        texts = iter(self.texts)
        pieces = ['{"id":', json.dumps(request_id), ","] if request_id else ["{"]
        pieces.append(next(texts))
        behind: list[bytes] = []
        for raw, write in zip(raws, self.writers, strict=True):
            if write is None:
                behind.append(raw)
            else:
                pieces += (write(raw), next(texts))
        return written_reply("".join(pieces).encode(), behind)


class InferResponses:
    """Writes replies to infer requests, by a plan where there is one. For one thread."""

    def __init__(self) -> None:
        self._plans: dict[tuple[bytes, object], _Plan] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def write(self, message: bytes, wanted: BinaryWanted) -> WrittenReply:
        """The body of the reply.

        Args:
            message: a ModelInferResponse.
            wanted: which outputs go behind the JSON.

        Raises:
            ServingError: as `write_infer_response`.
        """
        cut = cut_up(message)
        if cut is None:
            return write_infer_response(message, wanted)
        rest, request_id, raws = cut
        key = (rest, wanted.key)
        plan = self._plans.get(key)
        if plan is not None and [len(raw) for raw in raws] == plan.sizes:  # guard: rest-replies-sizes
            return plan.reply(request_id, raws)
        whole = write_infer_response(message, wanted)
        plan = _plan(rest, raws, wanted)
        if plan is not None and len(rest) <= _LARGEST_REST:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        return whole


def cut_up(message: bytes) -> tuple[bytes, str, Sequence[bytes]] | None:
    """A response message without its id and data, its id, and the data of each output.

    Returns:
        None where its fields are not in the order of their numbers, each of them with a length.
    """
    raws: list[bytes] = []
    rest, request_id = [], b""
    position, kept_from, end, last = 0, 0, len(message), 0
    while position < end:
        tag, size, start = message[position], message[position + 1], position + 2
        if size >= _VARINT_MORE:
            size, start = _length(message, position + 1)
        stop = start + size
        if tag < last or tag & _WIRE_TYPE != _LENGTH_DELIMITED or stop > end or (tag == last == _ID):
            return None
        if tag in (_ID, _RAW):
            rest.append(message[kept_from:position])
            kept_from = stop
            if tag == _ID:
                request_id = message[start:stop]
            else:
                raws.append(message[start:stop])
        position, last = stop, tag
    rest.append(message[kept_from:])
    return b"".join(rest), request_id.decode(), raws


def _length(message: bytes, position: int) -> tuple[int, int]:
    """A length as protobuf writes it, and where it ends."""
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & ~_VARINT_MORE) << shift
        position, shift = position + 1, shift + 7
        if byte < _VARINT_MORE:
            return value, position


def _plan(rest: bytes, raws: Sequence[bytes], wanted: BinaryWanted) -> _Plan | None:
    """The plan for a message without its id and data; None where the data of an output is elsewhere."""
    response = ModelInferResponse.FromString(rest)
    if any(output.parameters for output in response.outputs):  # guard: rest-replies-regions
        return None
    texts = response_json(response, raws, wanted, lambda _tensor, _raw: _DATA).split(_DATA)
    writers = [None if wanted(output.name) else _writer(output) for output in response.outputs]
    return _Plan([len(raw) for raw in raws], [texts[0].removeprefix("{"), *texts[1:]], writers)


def _writer(tensor: OutputTensor) -> Callable[[bytes], str]:
    datatype, name = DATATYPES[tensor.datatype], tensor.name
    return lambda raw: elements_text(json_from_raw(raw, datatype, tensor=name))
