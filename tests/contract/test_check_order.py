"""The order in which a request is checked: of several faults, the same one is heard of always."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from testkit import onnx_models
from testkit.rpc import begin, refusal
from testkit.servers import running_server
from testkit.spoiled_requests import Change, add_input, ask_for, but, datatype, pair, parameter, raw, rename, shape


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[grpc.Channel]:
    """To a server with the one model `joiner`."""
    repository = tmp_path_factory.mktemp("models")
    onnx_models.save_two_inputs(repository)
    with (
        running_server(repository, transport=transport) as server,
        grpc.insecure_channel(str(server.grpc_address)) as opened,
    ):
        yield opened


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a good request, and how its message is told from every other's."""

    says: str
    plant: Change
    excludes: tuple[str, ...] = ()


def widen_right(request: ModelInferRequest) -> None:
    request.inputs[1].shape[0] = 5


def too_many_rows(request: ModelInferRequest) -> None:
    for tensor in request.inputs:
        tensor.shape[0] = 257


def repeat_input(request: ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(bytes(16))


def drop_data(request: ModelInferRequest) -> None:
    del request.raw_input_contents[-1]


# In the order of the checks. Planted from the last to the first: so each finds a request it can spoil.
ORDER: dict[str, Fault] = {
    "version": Fault("neither a positive integer", lambda r: setattr(r, "model_version", "1x"), ("unknown version",)),
    "model": Fault("model 'nothing' is not", lambda r: setattr(r, "model_name", "nothing"), ("unknown version",)),
    "unknown version": Fault("version '9' of model", lambda r: setattr(r, "model_version", "9")),
    "parameters": Fault("parameter 'priority' must", parameter("priority", string_param="1")),
    "repeated input": Fault("input 'left' is there more than once", repeat_input),
    "repeated output": Fault("output 'total' is there more than once", ask_for("total", "total")),
    "data": Fault("raw_input_contents came for", drop_data),
    "output parameters": Fault("'classification' must", ask_for("difference", classification=("int64_param", 0))),
    "requested output": Fault("'nothing' was requested", ask_for("nothing")),
    "input count": Fault(" came; model", add_input("w")),
    "unknown input": Fault("input 'z' is unknown", rename(1, "z")),
    "rows agree": Fault("all must have as many", widen_right),
    "row limit": Fault("takes up to 256", too_many_rows),
    "datatype": Fault("has datatype", datatype(1, "FP64")),
    "shape": Fault("has shape", lambda r: r.inputs[1].shape.__setitem__(1, 3)),
    "byte count": Fault("bytes; shape", lambda r: r.raw_input_contents.__setitem__(0, bytes(3))),
    "deadline": Fault("the deadline cannot be met", parameter("timeout", int64_param=1)),
}
PAIRS = [
    (first, second)
    for first, second in itertools.combinations_with_replacement(ORDER, 2)
    if second not in ORDER[first].excludes
]


def spoiled(*faults: str) -> ModelInferRequest:
    """A good request with these faults."""
    return but(pair(), *(ORDER[fault].plant for fault in reversed(ORDER) if fault in faults))


def hears_of(channel: grpc.Channel, request: ModelInferRequest) -> list[str]:
    """Which of the faults the answer names."""
    _, text = refusal(begin(channel, "ModelInfer", request))
    return [fault for fault, planted in ORDER.items() if planted.says in text]


@pytest.mark.parametrize("second", ORDER)
def test_of_two_faults_the_one_that_is_checked_first_is_heard_of(channel: grpc.Channel, second: str) -> None:
    heard = {first: hears_of(channel, spoiled(first, second)) for first, other in PAIRS if other == second}
    assert heard == {first: [first] for first in heard}
    assert second in heard  # and alone it is heard of by itself


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(faults=st.sets(st.sampled_from(list(ORDER)), min_size=1))
def test_of_any_faults_the_one_that_is_checked_first_is_heard_of(channel: grpc.Channel, faults: set[str]) -> None:
    if {"version", "model"} & faults:
        faults.discard("unknown version")
    first = next(fault for fault in ORDER if fault in faults)
    assert hears_of(channel, spoiled(*faults)) == [first]


def test_each_input_is_checked_for_one_thing_before_any_is_checked_for_the_next(channel: grpc.Channel) -> None:
    for changes, message in (
        ((raw(0, bytes(3)), shape(1, 2, 3)), "'right' of model 'joiner' has shape"),
        ((shape(0, 2, 3), datatype(1, "FP64")), "'right' of model 'joiner' has datatype"),
    ):
        assert message in refusal(begin(channel, "ModelInfer", but(pair(), *changes)))[1]


@pytest.mark.parametrize(
    ("model", "version", "code", "message"),
    [
        ("nothing", "1x", "INVALID_ARGUMENT", "'1x'"),
        ("nothing", "", "NOT_FOUND", "'nothing'"),
        ("joiner", "9", "NOT_FOUND", "'9'"),
        ("joiner", "", "INVALID_ARGUMENT", "is not a valid inference.ModelInferRequest"),
    ],
)
def test_of_an_input_that_is_no_message_a_request_hears_after_its_model(
    channel: grpc.Channel, model: str, version: str, code: str, message: str
) -> None:
    named = ModelInferRequest(model_name=model, model_version=version).SerializeToString()
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
    came, text = refusal(stub.future(named + b"\x2a\x02\xff\xff"))  # an input of two bytes
    assert (came, message in text) == (code, True), text
