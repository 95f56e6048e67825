"""Infer requests over HTTP by the plan of an earlier one: the message that reading in full makes, for less.

A client's requests differ in their tensors' data and their ids; all else is the same JSON again and again. What that
became in the first request of a kind is kept under it: a request that repeats it needs only its id and its data
written to it. What is unusual in any way has no plan and is read in full, so that its faults are told as ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.http.infer_request import (
    RAW_TAG,
    BinaryWanted,
    ReadRequest,
    json_length,
    read_described,
    read_json_object,
)
from inferry_server.http.json_parts import has_truths, parts_of, quickly_parsed, without_id
from inferry_server.http.json_tensors import raw_from_json
from inferry_server.http.repeated_texts import RepeatedTexts
from inferry_server.wire.encode import varint

_MOST_PLANS = 1024  # clients that vary more are read in full
_LARGEST_HEADER = 4096  # bytes of JSON without its data
_ID_TAG = bytes([ModelInferRequest.DESCRIPTOR.fields_by_name["id"].number << 3 | 2])

_Part = tuple[Any, str | int]
"""Where an input's data is: in the JSON, of a `Datatype` and a name; or behind it: what the message has before it, and
its size."""

_Key = tuple[str, str, bytes, bool]
"""Model and version of the path, bytes of JSON, and whether its data was taken out; its id always is."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What requests become that repeat the JSON of an earlier one.

    Attributes:
        names: the message up to its id.
        described: the message behind its id, up to the contents of the inputs.
        parts: of the inputs.
        behind: bytes of data behind the JSON.
        wanted: how the outputs are to be written.
    """

    names: bytes
    described: bytes
    parts: Sequence[_Part]
    behind: int
    wanted: BinaryWanted

    def written(self, request_id: str, data: Sequence[Any], body: bytes, start: int, *, may_have_truths: bool) -> bytes:
        """The message.

        Args:
            request_id: of the request.
            data: of each input that has it in the JSON.
            body: of the request.
            start: where the data behind the JSON begins.
            may_have_truths: whether there may be true or false in the data.

        Raises:
            DecodingError: data that is not as its datatype has it.
        """
        pieces: list[bytes | memoryview] = [self.names]
        if request_id:
            encoded = request_id.encode()
            pieces += (_ID_TAG, varint(len(encoded)), encoded)
        pieces.append(self.described)
        position = 0
        for kind, of in self.parts:
            if isinstance(of, int):
                pieces += (kind, memoryview(body)[start : start + of])
                start += of
            else:
                raw = raw_from_json(data[position], kind, tensor=of, has_truths=may_have_truths)
                position += 1
                pieces += (RAW_TAG, varint(len(raw)), raw)
        return b"".join(pieces)


class InferRequests:
    """Reads infer requests, by a plan where there is one. Any thread may call; at worst a plan is made twice."""

    def __init__(self) -> None:
        self._plans: dict[_Key, _Plan] = {}
        self._texts: RepeatedTexts[_Plan] = RepeatedTexts(lambda: _MOST_PLANS, _LARGEST_HEADER)

    def __len__(self) -> int:
        return len(self._plans)

    def read(self, body: bytes, stated: str | None, *, model: str, version: str) -> tuple[bytes, BinaryWanted]:
        """The message that asks the same, and how its outputs are to be written.

        Args:
            body: of the request, decompressed.
            stated: its `Inference-Header-Content-Length`; None for none.
            model: from the path.
            version: from the path; empty for none.

        Raises:
            ServingError: as `read_infer_request`.
        """
        length = json_length(body, stated)
        header = body if length == len(body) else body[:length]
        behind = len(body) - length
        request_id, text = without_id(header)
        if behind:  # then all of the JSON may repeat, but for the id
            plan = self._plans.get((model, version, text, False))
            if plan is not None and plan.behind == behind:  # guard: rest-plans-bytes
                return plan.written(request_id, (), body, length, may_have_truths=False), plan.wanted
        elif (found := self._texts.find(model, version, text)) is not None:
            plan, numbers = found
            return plan.written(request_id, (numbers,), body, length, may_have_truths=False), plan.wanted
        request = quickly_parsed(header)
        if request is None:
            return _in_full(read_json_object(header), body, length, model, version)
        parts = parts_of(request)
        if parts is None:
            return _in_full(request, body, length, model, version)
        request_id, data, rest = parts
        key = (model, version, rest, True)
        plan = self._plans.get(key)
        if plan is not None and plan.behind == behind:  # guard: rest-plans-data
            if behind:
                self._learn_whole((model, version, text, False), plan, request, is_whole=text is header)
            else:
                self._texts.learn(model, version, text, rest, plan)
            truths = has_truths(header, rest)
            return plan.written(request_id, data, body, length, may_have_truths=truths), plan.wanted
        read = read_described(request, body, length, model=model, version=version)
        plan = _plan(request, read, behind)
        if plan is not None:
            self._learn(key, plan)
        return read.written(), read.wanted

    def _learn_whole(self, key: _Key, plan: _Plan, request: Mapping[str, Any], *, is_whole: bool) -> None:
        """Keep a plan by all of the JSON but for the id that it begins with, if no data and no other id is in it.

        Args:
            key: with that text.
            plan: of the request.
            request: what the JSON holds.
            is_whole: whether the text is all of it.
        """
        described = request if is_whole else quickly_parsed(key[2]) or request
        has_data = any("data" in tensor for tensor in request["inputs"])
        if not has_data and "id" not in described:  # guard: rest-plans-whole
            self._learn(key, plan)

    def _learn(self, key: _Key, plan: _Plan) -> None:
        if len(key[2]) > _LARGEST_HEADER:
            return
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()  # rare, and cheaper than to keep account of every use
        self._plans[key] = plan


def _in_full(
    request: Mapping[str, Any], body: bytes, start: int, model: str, version: str
) -> tuple[bytes, BinaryWanted]:
    read = read_described(request, body, start, model=model, version=version)
    return read.written(), read.wanted


def _plan(request: Mapping[str, Any], read: ReadRequest, behind: int) -> _Plan | None:
    """The plan of a request that was read; None where an input has no data, or data without a known datatype."""
    parts: list[_Part] = []
    for tensor, raw in zip(request["inputs"], read.raws, strict=True):
        datatype = DATATYPES.get(tensor.get("datatype", ""))
        if raw is None or datatype is None:
            return None
        parts.append((datatype, tensor["name"]) if "data" in tensor else (RAW_TAG + varint(len(raw)), len(raw)))
    message = ModelInferRequest()
    message.CopyFrom(read.message)
    message.ClearField("id")
    names = ModelInferRequest(model_name=message.model_name, model_version=message.model_version).SerializeToString()
    return _Plan(names, message.SerializeToString()[len(names) :], parts, behind, read.wanted)
