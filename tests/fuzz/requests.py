"""ModelInfer requests: read by the plan of an earlier one or parsed whole, they are the same or refused alike."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from google.protobuf.message import DecodeError

from fuzz.mutation import corpus, mutated, rng_of
from fuzz.target import Check, Target, expect
from inferry_proto.datatypes import DATATYPES, Arrays
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ServingError
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.statuses import status_of
from inferry_server.signature import Signature, TensorSpec
from inferry_server.wire.messages import parse
from inferry_server.wire.reading import IncomingRequest, ReadRequest, RequestReader
from inferry_server.wire.shared_memory import SharedMemoryRegions
from testkit import spoiled_requests as spoil
from testkit.scheduling import POLICY

Outcome = tuple[Any, ...]


@dataclass(frozen=True)
class _Model:
    """What a reader asks of a version."""

    model: str
    signature: Signature
    version: str = "1"
    max_request_rows: int = 64
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    policy: BatchingPolicy = POLICY

    def check_reply_size(self, inputs: object) -> None:
        """Every answer is small here."""


_OUTPUTS = (TensorSpec("y", DATATYPES["FP32"], (-1, 2)), TensorSpec("z", DATATYPES["INT64"], (-1,)))
MODELS = {
    "numbers": _Model("numbers", Signature(
        (TensorSpec("x", DATATYPES["FP32"], (-1, 3)), TensorSpec("mask", DATATYPES["BOOL"], (-1, -1))), _OUTPUTS)),
    "texts": _Model("texts", Signature((TensorSpec("x", DATATYPES["BYTES"], (-1, 2)),), _OUTPUTS)),
}  # fmt: skip


def read(reader: RequestReader, message: bytes, *, whole: bool = False) -> Outcome:
    """What a reader makes of a message, as values that can be compared; `whole` forbids it to cut."""
    try:
        incoming = receive_whole(message) if whole else reader.receive(message, 0.0, None)
        model = MODELS.get(incoming.model_name)
        names = (incoming.model_name, incoming.model_version, incoming.request_id)
        if model is None:
            return ("no model",)
        return (*names, *_described(reader.read(incoming, cast("ServedVersion", model)), model))
    except ServingError as error:
        return ("refused", status_of(error).code, str(error))


def receive_whole(message: bytes) -> IncomingRequest:
    parsed = parse(ModelInferRequest, message)
    return IncomingRequest(message, parsed.model_name, parsed.model_version, parsed.id)


def _described(request: ReadRequest, model: _Model) -> Outcome:
    inputs = [
        (name, array.shape, str(array.dtype), array.tolist() if array.dtype.hasobject else array.tobytes())
        for name, array in request.inputs.items()
    ]
    outputs: Arrays = {"y": np.ones((request.rows, 2), np.float32), "z": np.ones(request.rows, np.int64)}
    return inputs, request.rows, request.timeout_s, request.lane, request.encode(outputs)


def check_request(message: bytes) -> bool:
    """Read it in full, by the plans of the corpus, and by the plan it made itself."""
    full = read(RequestReader(SharedMemoryRegions(allowed=False)), message, whole=True)
    reader = RequestReader(SharedMemoryRegions(allowed=False))
    for known in corpus("requests"):
        read(reader, known)
    for time in ("first", "second"):
        planned = read(reader, message)
        # Where no such model is there, the cutter says so before the parser looks at the rest: both refuse.
        alike = planned == full or (planned == ("no model",) and full[0] == "refused")
        expect(alike, f"read for the {time} time: {planned}; in full: {full}")
    return full[0] not in ("refused", "no model")


def _mutate(seed: int) -> bytes:
    rng = rng_of("requests", seed)
    message = rng.choice(corpus("requests"))
    for change in rng.sample(_CHANGES, k=rng.randrange(3)):
        message = change(message, rng)
    return message


def _parsed(message: bytes) -> ModelInferRequest | None:
    try:
        return ModelInferRequest.FromString(message)
    except DecodeError:
        return None


def _spoil(message: bytes, rng: random.Random) -> bytes:
    """One of the faults that the tests of each check know."""
    request = _parsed(message)
    if request is None or not request.inputs or not request.raw_input_contents:
        return message
    axes = [rng.choice((0, 1, 2, 3, 4, -1, 64, 65, 2**31, 2**62)) for _ in range(rng.randrange(4))]
    place = rng.randrange(len(request.inputs))
    change = rng.choice((
        spoil.shape(place, *axes),
        spoil.datatype(place, rng.choice((*DATATYPES, "", "fp32"))),
        spoil.rename(place, rng.choice(("x", "mask", "", "\u00e4" * 50))),
        spoil.raw(rng.randrange(len(request.raw_input_contents)), rng.randbytes(rng.randrange(40))),
        spoil.add_input(rng.choice(("x", "more"))),
        spoil.ask_for(*rng.choices(("y", "z", "w", ""), k=2)),
        spoil.ask_for("y", classification=("int64_param", rng.randrange(-1, 4))),
        spoil.parameter(rng.choice(("timeout", "priority", "other")), int64_param=rng.choice((-1, 0, 7, 2**63 - 1))),
        spoil.parameter("priority", uint64_param=rng.choice((0, 1, 2, 2**64 - 1))),
        spoil.parameter("timeout", string_param="soon"),
    ))  # fmt: skip
    return spoil.but(request, change).SerializeToString()


def _shuffle_fields(message: bytes, rng: random.Random) -> bytes:
    """The fields of the message in another order, some twice, some gone: all of it valid protobuf."""
    request = _parsed(message)
    if request is None:
        return message
    single: list[Any] = [{name: getattr(request, name)} for name in ("model_name", "model_version", "id")]
    repeated = [
        {name: [value]} for name in ("inputs", "outputs", "raw_input_contents") for value in getattr(request, name)
    ]
    pieces = [ModelInferRequest(**fields).SerializeToString() for fields in single + repeated]
    match rng.randrange(3):
        case 0:
            rng.shuffle(pieces)
        case 1:
            pieces.insert(rng.randrange(len(pieces)), rng.choice(pieces))
        case _:
            pieces.pop(rng.randrange(len(pieces)))
    return b"".join(pieces)


def _other_data(message: bytes, rng: random.Random) -> bytes:
    """The same header with other values of the same sizes: what plans are for."""
    request = _parsed(message)
    if request is None:
        return message
    for place, raw in enumerate(request.raw_input_contents):
        request.raw_input_contents[place] = rng.randbytes(len(raw))
    request.id = rng.choice(("", "another", "\u00e4" * 70))
    return request.SerializeToString()


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (_spoil, _shuffle_fields, _other_data, mutated)


@contextmanager
def _opened() -> Iterator[Check]:
    yield check_request


REQUESTS = Target("requests", _mutate, _opened)
