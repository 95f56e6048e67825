"""What is read and written without protobuf's messages is what protobuf would have read and written."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from inferry_client import errors
from inferry_client.calling.calls import Send
from inferry_client.messages import call as call_module
from inferry_client.messages import reply_plans, requests
from inferry_client.messages.replies import read_infer
from inferry_client.messages.reply_plans import read_wire
from inferry_client.messages.tensors import wire_tensor
from inferry_client.results import InferResult
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from inferry_proto.variants import NAMED
from testkit.call_steps import Transport

Shape = tuple[int, ...]
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
DTYPES = st.sampled_from(["u1", "<f4", "<i8", "?", "<f2", "O"])
OUTPUTS = st.dictionaries(st.text(max_size=4), st.tuples(SHAPES, DTYPES), max_size=3)


@pytest.fixture(autouse=True)
def no_plans() -> Iterator[None]:
    reply_plans._plans.clear()
    yield
    reply_plans._plans.clear()


def wire_of(outputs: dict[str, tuple[Shape, str]], value: int, **fields: Any) -> bytes:
    """A reply with outputs of these shapes and dtypes, all of whose elements are the same."""
    reply = ModelInferResponse(**{"model_name": "m", "model_version": "1"} | fields)
    for name, (shape, dtype) in outputs.items():
        element = str(value).encode() if dtype == "O" else value
        datatype, contents = wire_tensor(np.full(shape, element, dtype))
        reply.outputs.add(name=name, datatype=datatype, shape=shape)
        reply.raw_output_contents.append(contents)
    return reply.SerializeToString()


def outcome(wire: bytes, *, planned: bool) -> Any:
    """What becomes of a reply's bytes, as something that can be compared."""
    try:
        result = read_infer(read_wire(wire) if planned else ModelInferResponse.FromString(wire))
    except (DecodeError, ValueError) as error:
        return type(error)
    tensors = {
        name: (each.dtype, each.shape, each.tolist(), each.flags.writeable) for name, each in result.outputs.items()
    }
    return result.model, result.version, result.request_id, result.variant, repr(tensors)


@given(OUTPUTS, st.sampled_from(["", "r"]), st.sampled_from(["", "int8"]), st.lists(st.integers(0, 9), min_size=2))
def test_replies_are_read_by_a_plan_as_without(
    outputs: dict[str, tuple[Shape, str]], request_id: str, variant: str, values: list[int]
) -> None:
    for value in values:
        reply = ModelInferResponse.FromString(wire_of(outputs, value, id=request_id))
        if variant:
            reply.parameters[NAMED].string_param = variant
        wire = reply.SerializeToString()
        assert outcome(wire, planned=True) == outcome(wire, planned=False)


def test_the_second_reply_of_a_kind_is_read_by_a_plan_and_its_arrays_are_aligned() -> None:
    outputs = {"a": ((2, 3), "<f4"), "longer name": ((5,), "<i8")}
    first, second = (read_wire(wire_of(outputs, value)) for value in (1, 2))
    assert isinstance(first, ModelInferResponse)
    assert isinstance(second, InferResult)
    for name, (shape, dtype) in outputs.items():
        assert_array_equal(second.outputs[name], np.full(shape, 2, dtype))
        assert second.outputs[name].flags.aligned
    assert isinstance(read_wire(wire_of(outputs, 1, model_version="2")), ModelInferResponse)


@given(st.integers(0, 200), st.integers(1, 255), st.booleans())
def test_a_reply_that_differs_in_anything_else_is_read_as_without_a_plan(place: int, change: int, cut: bool) -> None:
    wire = wire_of({"y": ((2, 3), "<f4"), "z": ((2,), "<i8")}, 1)
    read_wire(wire)
    spoiled = bytearray(wire)
    spoiled[place % len(wire)] ^= change
    other = bytes(spoiled[:-1] if cut else spoiled)
    assert outcome(other, planned=True) == outcome(other, planned=False)
    assert outcome(wire, planned=True) == outcome(wire, planned=False)


def test_replies_of_several_versions_and_with_the_shortest_names_are_read_by_plans() -> None:
    for value in range(5):
        for version in "123":
            reply = read_wire(wire_of({"y": ((1,), "u1")}, value, model_version=version))
            assert isinstance(reply, InferResult) is (value > 0)
            assert read_infer(reply).version == version


def test_plans_are_few_and_of_small_replies() -> None:
    for number in range(2 * reply_plans._MAX_LENGTHS):
        read_wire(wire_of({"y": ((number,), "u1")}, 0))
        read_wire(wire_of({"y": ((1,), "u1")}, 0, model_version=str(number)))
    assert len(reply_plans._plans) <= reply_plans._MAX_LENGTHS
    assert max(map(len, reply_plans._plans.values())) <= reply_plans._MAX_ALIKE
    reply_plans._plans.clear()
    read_wire(wire_of({"y": ((1 << 16,), "u1")}, 0))
    assert not reply_plans._plans


def test_a_request_that_grpc_could_not_carry_is_refused_or_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "MAX_MESSAGE_BYTES", 100)
    with pytest.raises(errors.InvalidRequestError, match=r"run model 'm' takes \d+ bytes; expected at most 100"):
        requests.infer("m", {"x": np.zeros((1, 99), np.uint8)}).serialize()
    rows: list[int] = []

    def answer(step: Send, _: float) -> Any:
        try:
            request = ModelInferRequest.FromString(step.call.serialize())
        except errors.InvalidRequestError as error:
            return error
        rows.append(request.inputs[0].shape[0])
        return ModelInferResponse.FromString(wire_of({"y": ((rows[-1], 1), "u1")}, 1))

    transport = Transport(answer)
    result = transport.carry_out(transport.session.perform(requests.infer("m", {"x": np.zeros((9, 10), np.uint8)})))
    assert result.outputs["y"].shape == (9, 1)
    assert len(rows) > 1


@given(
    st.dictionaries(st.text(max_size=4), st.tuples(SHAPES, DTYPES), max_size=3),
    st.sampled_from([{}, {"request_id": "r"}, {"outputs": ["y"]}, {"priority": 3}, {"parameters": {"a": 1}}]),
    st.sampled_from(["", "1", "é"]),
)
def test_a_request_travels_as_protobuf_would_write_it(
    inputs: dict[str, tuple[Shape, str]], settings: dict[str, Any], version: str
) -> None:
    arrays = {name: np.full(shape, b"x" if dtype == "O" else 1, dtype) for name, (shape, dtype) in inputs.items()}
    call = requests.infer("m", arrays, version=version, **settings)
    wire = call.serialize()
    expected = ModelInferRequest(
        model_name="m",
        model_version=version,
        id=settings.get("request_id", ""),
        outputs=[ModelInferRequest.InferRequestedOutputTensor(name=name) for name in settings.get("outputs", ())],
    )
    for name, array in arrays.items():
        datatype, contents = wire_tensor(array)
        expected.inputs.add(name=name, datatype=datatype, shape=array.shape)
        expected.raw_input_contents.append(contents)
    if "priority" in settings:
        expected.parameters["priority"].uint64_param = 3
    if "parameters" in settings:
        expected.parameters["a"].int64_param = 1
    assert wire == expected.SerializeToString() == call.request.SerializeToString()
