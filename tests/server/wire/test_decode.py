"""Requests are checked completely and in a fixed order; good ones lose nothing on the way."""

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.errors import DecodingError, ServingError, TooManyTextsError
from inferry_server.signature import Signature, TensorSpec
from inferry_server.wire.decode import DecodedRequest, RequestedOutput, decode_infer_request
from inferry_server.wire.elements import bytes_to_elements, elements_to_bytes
from inferry_server.wire.encode import encode_infer_response
from inferry_server.wire.messages import parse
from inferry_server.wire.shared_memory import SharedMemoryRegions
from testkit.spoiled_requests import Change, parameter

NUMERIC = [name for name in DATATYPES if name != "BYTES"]
X = TensorSpec("x", DATATYPES["FP32"], (-1, 2))
Y = TensorSpec("y", DATATYPES["INT8"], (-1,))
OUT = TensorSpec("out", DATATYPES["FP32"], (-1, 3))
NO_REGIONS = SharedMemoryRegions(allowed=False)
SIGNATURE = Signature((X, Y), (OUT, TensorSpec("aux", DATATYPES["INT64"], (-1,))))


def good_request(rows: int = 2) -> ModelInferRequest:
    request = ModelInferRequest(model_name="m", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 2])
    request.inputs.add(name="y", datatype="INT8", shape=[rows])
    request.raw_input_contents.extend([bytes(8 * rows), bytes(rows)])
    return request


def decode(
    request: ModelInferRequest,
    signature: Signature = SIGNATURE,
    max_request_rows: int = 8,
    regions: SharedMemoryRegions = NO_REGIONS,
) -> DecodedRequest:
    return decode_infer_request(request, signature, model="m", max_request_rows=max_request_rows, regions=regions)


def test_a_good_request_passes_with_every_output() -> None:
    decoded = decode(good_request(3))
    assert decoded.rows == 3
    assert [output.spec.name for output in decoded.outputs] == ["out", "aux"]
    assert decoded.timeout_s is None
    assert {name: array.shape for name, array in decoded.inputs.items()} == {"x": (3, 2), "y": (3,)}


@given(
    st.lists(st.one_of(st.integers(0, 3), st.integers(1 << 30, (1 << 63) - 1)), max_size=70).map(lambda a: [*a, 0]),
    st.sampled_from(["FP32", "BYTES"]),
    st.booleans(),
)
def test_shapes_without_elements_are_arrays_or_bad_requests_however_long_their_axes(
    shape: list[int], datatype: str, typed: bool
) -> None:
    free = Signature((TensorSpec("x", DATATYPES[datatype], (), any_rank=True),), ())
    request = ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    if typed:
        request.inputs[0].contents.SetInParent()
    else:
        request.raw_input_contents.append(b"")
    if len(shape) <= 64 and math.prod(axis for axis in shape if axis) < 1 << 59:
        assert decode(request, free, max_request_rows=0).inputs["x"].shape == tuple(shape)
        return
    with contextlib.suppress(DecodingError):  # nothing else
        decode(request, free, max_request_rows=0)


def test_inputs_may_come_in_any_order() -> None:
    request = good_request()
    request.inputs.reverse()
    request.raw_input_contents.reverse()
    decoded = decode(request)
    assert decoded.inputs["x"].shape == (2, 2)
    assert (list(decoded.inputs), list(decoded.order)) == (["x", "y"], ["y", "x"])


def test_requested_outputs_keep_their_order() -> None:
    request = good_request()
    request.outputs.add(name="aux")
    request.outputs.add(name="out")
    assert [output.spec.name for output in decode(request).outputs] == ["aux", "out"]


def change(path: str, value: Any) -> Change:
    """A fault: one field of one input set to a value."""
    position, field = path.split(".")

    def apply(request: ModelInferRequest) -> None:
        tensor = request.inputs[int(position)]
        if field == "shape":
            tensor.shape[:] = value
        else:
            setattr(tensor, field, value)

    return apply


def raw(*contents: bytes) -> Change:
    def apply(request: ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        request.raw_input_contents.extend(contents)

    return apply


def repeat_input(request: ModelInferRequest) -> None:
    request.inputs[1].name = "x"


def repeat_output(request: ModelInferRequest) -> None:
    request.outputs.add(name="out")
    request.outputs.add(name="out")


def ask_for(name: str, **parameters: int) -> Change:
    def apply(request: ModelInferRequest) -> None:
        output = request.outputs.add(name=name)
        for key, value in parameters.items():
            output.parameters[key].int64_param = value

    return apply


def add_contents(request: ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.append(1)


def drop_input(request: ModelInferRequest) -> None:
    del request.inputs[1]
    del request.raw_input_contents[1]


def add_input(request: ModelInferRequest) -> None:
    request.inputs.add(name="w", datatype="FP32", shape=[2])
    request.raw_input_contents.append(bytes(8))


FAULTS: list[tuple[Change, str]] = [
    (parameter("priority", bool_param=True), "'priority' must be an uint64_param or an int64_param, not bool_param"),
    (parameter("priority", int64_param=-1), "parameter 'priority' must be at least 0, not -1"),
    (parameter("timeout", string_param="5"), "parameter 'timeout' must be an int64_param, not string_param"),
    (parameter("timeout", int64_param=-1), "at least 0 microseconds, not -1"),
    (parameter("triton_magic", bool_param=True), "parameter 'triton_magic' is unknown"),
    (repeat_input, "input 'x' is there more than once; model 'm' takes 'x', 'y'"),
    (repeat_output, "requested output 'out' is there more than once"),
    (add_contents, "input 'x' has contents and raw_input_contents"),
    (raw(), "input 'x' has no data"),
    (raw(bytes(16)), r"1 raw_input_contents came for 2 inputs \('x', 'y'\)"),
    (raw(bytes(16), bytes(2), b""), "3 raw_input_contents came for 2 inputs"),
    (ask_for("out", classification=0), "requested output 'out': parameter 'classification' .* above 0, not 0"),
    (ask_for("out", shared_memory_region=1), "output 'out': parameter 'shared_memory_region' must be string_param"),
    (ask_for("nothing"), "output 'nothing' was requested of model 'm', which gives 'out', 'aux'"),
    (drop_input, "input 'y' is missing, 1 came; model 'm' takes 'x', 'y'"),
    (add_input, "input 'w' is one too many, 3 came; model 'm' takes 'x', 'y'"),
    (change("1.name", "z"), "input 'z' is unknown; model 'm' takes 'x', 'y'"),
    (change("0.shape", []), r"input 'x' of model 'm' has no shape; expected \[-1, 2\]"),
    (change("1.shape", [3]), "input 'y' has 3 rows and input 'x' has 2"),
    (change("0.datatype", "FP64"), "input 'x' of model 'm' has datatype 'FP64'; expected FP32"),
    (change("1.datatype", ""), "input 'y' of model 'm' has datatype ''; expected INT8"),
    (change("0.shape", [2, 3]), r"input 'x' of model 'm' has shape \[2, 3\]; expected \[-1, 2\]"),
    (change("0.shape", [2, -1]), r"input 'x' of model 'm' has shape \[2, -1\]; expected"),
    (change("1.shape", [2, 1]), r"input 'y' of model 'm' has shape \[2, 1\]; expected \[-1\]"),
    (raw(bytes(15), bytes(2)), r"input 'x' has 15 bytes; shape \[2, 2\] of FP32 takes 16"),
    (raw(bytes(16), bytes(3)), r"input 'y' has 3 bytes; shape \[2\] of INT8 takes 2"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_each_fault_is_named(fault: Change, message: str) -> None:
    request = good_request()
    fault(request)
    with pytest.raises(ServingError, match=message):
        decode(request)


@pytest.mark.parametrize(
    ("rows", "message"), [(0, "has 0 rows; expected 1 to 8"), (9, "9 rows; model 'm' takes up to 8")]
)
def test_rows_are_at_least_one_and_at_most_the_limit(rows: int, message: str) -> None:
    with pytest.raises(ServingError, match=message):
        decode(good_request(rows))


def test_negative_rows_are_refused() -> None:
    request = good_request()
    request.inputs[0].shape[:] = [-1, 2]
    request.inputs[1].shape[:] = [-1]
    with pytest.raises(ServingError, match="-1 rows"):
        decode(request)


def too_many_rows(request: ModelInferRequest) -> None:
    request.inputs[0].shape[:] = [9, 3]
    request.inputs[1].shape[:] = [9]


def test_a_request_with_many_faults_hears_of_the_earliest_check() -> None:
    """Faults are planted from the last check to the first, and each takes the message over."""
    from_last_to_first: list[tuple[Change, str]] = [
        (raw(bytes(15), bytes(2)), "has 15 bytes"),
        (change("0.shape", [2, 3]), "has shape"),
        (change("1.datatype", "FP64"), "has datatype"),
        (too_many_rows, "9 rows; model"),
        (change("1.shape", [3]), "has 3 rows and input"),
        (change("1.name", "z"), "'z' is unknown"),
        (add_input, "'y' is missing"),
        (ask_for("nothing"), "'nothing' was requested"),
        (ask_for("out", classification=0), "'classification' must be"),
        (raw(bytes(16)), "1 raw_input_contents came for 3 inputs"),
        (ask_for("nothing"), "'nothing' is there more than once"),
        (repeat_input, "'x' is there more than once"),
        (parameter("timeout", bool_param=True), "'timeout' must be"),
    ]
    request = good_request()
    for fault, message in from_last_to_first:
        fault(request)
        with pytest.raises(ServingError, match=message):
            decode(request)


@given(st.data())
def test_raw_tensors_of_every_datatype_arrive_as_they_were_sent(data: st.DataObject) -> None:
    datatype = DATATYPES[data.draw(st.sampled_from(NUMERIC))]
    drawn = np.dtype(np.uint16) if datatype.name == "BF16" else datatype.dtype  # opaque bytes cannot be drawn
    array = data.draw(hnp.arrays(drawn, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))).view(datatype.dtype)
    spec = TensorSpec("t", datatype, (-1,) * array.ndim)
    request = ModelInferRequest(model_name="m")
    request.inputs.add(name="t", datatype=datatype.name, shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    decoded = decode(request, Signature((spec,), (spec,)))
    assert decoded.inputs["t"].dtype == datatype.dtype
    assert decoded.inputs["t"].tobytes() == array.tobytes()
    response = encode_infer_response(
        request, [RequestedOutput(spec)], {"t": array}, version="3", labels={}, batched=True
    )
    assert response.raw_output_contents[0] == array.tobytes()
    assert (response.outputs[0].datatype, tuple(response.outputs[0].shape)) == (datatype.name, array.shape)
    assert response.model_version == "3"


@given(st.data())
def test_typed_contents_give_what_raw_contents_give(data: st.DataObject) -> None:
    datatype = DATATYPES[data.draw(st.sampled_from([n for n in NUMERIC if DATATYPES[n].contents_field]))]
    array: NDArray[Any] = data.draw(hnp.arrays(datatype.dtype, (3,)))
    spec = TensorSpec("t", datatype, (-1,))
    request = ModelInferRequest()
    tensor = request.inputs.add(name="t", datatype=datatype.name, shape=[3])
    getattr(tensor.contents, datatype.contents_field or "").extend(array.tolist())
    decoded = decode(request, Signature((spec,), (spec,))).inputs["t"]
    np.testing.assert_array_equal(decoded, array)
    assert decoded.dtype == datatype.dtype


@pytest.mark.parametrize(
    ("datatype", "field", "values", "message"),
    [
        ("UINT8", "uint_contents", [256, 0], "256"),
        ("INT8", "int_contents", [-129, 0], "129"),
        ("UINT8", "int_contents", [1, 2], "has int_contents; expected uint_contents"),
        ("UINT8", "uint_contents", [1], r"has 1 elements; shape \[2\] takes 2"),
        ("FP16", "fp32_contents", [1, 2], "FP16 travels only in raw_input_contents"),
        ("BYTES", "bytes_contents", [b"\xff", b""], "element 0 of BYTES is not UTF-8"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(datatype: str, field: str, values: list[Any], message: str) -> None:
    spec = TensorSpec("t", DATATYPES[datatype], (-1,))
    request = ModelInferRequest()
    tensor = request.inputs.add(name="t", datatype=datatype, shape=[2])
    getattr(tensor.contents, field).extend(values)
    with pytest.raises(DecodingError, match=message):
        decode(request, Signature((spec,), (spec,)))


@pytest.mark.parametrize("typed", [True, False])
def test_more_texts_than_may_be_are_refused_unread(typed: bool) -> None:
    spec = TensorSpec("t", DATATYPES["BYTES"], (-1, -1))
    request = ModelInferRequest()
    tensor = request.inputs.add(name="t", datatype="BYTES", shape=[2, 50])
    elements = [b"text"] * 100
    if typed:
        tensor.contents.bytes_contents.extend(elements)
    else:
        request.raw_input_contents.append(elements_to_bytes(np.array(elements, object)))

    def read(most: int) -> DecodedRequest:
        return decode_infer_request(
            request, Signature((spec,), (spec,)), model="m", max_request_rows=8, regions=NO_REGIONS, most_texts=most
        )

    assert read(100).inputs["t"].shape == (2, 50)
    if not typed:
        request.raw_input_contents[0] = b"\xff"  # which nobody looks at
    with pytest.raises(TooManyTextsError, match=r"input 't' has 100 texts; expected at most 99 .*fields"):
        read(99)


@pytest.mark.parametrize("columns", [40, -1])
def test_classifications_of_more_classes_than_may_be_are_refused(columns: int) -> None:
    spec = TensorSpec("t", DATATYPES["FP32"], (-1, columns))
    request = ModelInferRequest()
    request.inputs.add(name="t", datatype="FP32", shape=[3, 40])
    request.raw_input_contents.append(bytes(3 * 40 * 4))
    request.outputs.add(name="t").parameters["classification"].int64_param = 1 << 40
    scores = {"t": np.zeros((3, 40), np.float32)}

    def answer(most: int) -> int:
        signature = Signature((spec,), (spec,))
        decoded = decode_infer_request(
            request, signature, model="m", max_request_rows=8, regions=NO_REGIONS, most_texts=most
        )
        response = encode_infer_response(
            request, decoded.outputs, scores, version="1", labels={}, batched=True, most_texts=most
        )
        return len(bytes_to_elements(response.raw_output_contents[0], 120))

    assert answer(120) == 120
    with pytest.raises(TooManyTextsError, match=r"classification of output 't' has 120 texts; expected at most 119"):
        answer(119)


def test_a_classification_is_refused_where_numbers_cannot_be_ordered_or_written() -> None:
    spec = TensorSpec("t", DATATYPES["BYTES"], (-1,))
    request = ModelInferRequest()
    request.inputs.add(name="t", datatype="BYTES", shape=[0])
    request.raw_input_contents.append(b"")
    request.outputs.add(name="t").parameters["classification"].int64_param = 1
    with pytest.raises(ServingError, match="output 't' of model 'm' is BYTES; classification takes UINT8"):
        decode(request, Signature((spec,), (spec,)))


def test_a_scalar_is_legal_where_the_model_has_no_batch_dimension() -> None:
    spec = TensorSpec("t", DATATYPES["INT64"], ())
    request = ModelInferRequest()
    request.inputs.add(name="t", datatype="INT64", shape=[])
    request.raw_input_contents.append(bytes(8))
    decoded = decode(request, Signature((spec,), (spec,)), max_request_rows=0)
    assert decoded.rows == 1
    assert decoded.inputs["t"].shape == ()


def test_a_hostile_shape_does_not_wrap_around() -> None:
    spec = TensorSpec("t", DATATYPES["FP32"], (-1, -1, -1))
    request = ModelInferRequest()
    request.inputs.add(name="t", datatype="FP32", shape=[1, 1 << 62, 1 << 62])
    request.raw_input_contents.append(b"")
    with pytest.raises(DecodingError, match="has 0 bytes"):
        decode(request, Signature((spec,), (spec,)))


def test_the_timeout_parameter_is_microseconds_and_zero_means_none() -> None:
    request = good_request()
    request.parameters["timeout"].int64_param = 2_500_000
    request.parameters["my_own"].string_param = "ignored"
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    assert decode(request).timeout_s == 2.5
    request.parameters["timeout"].int64_param = 0
    assert decode(request).timeout_s is None


@pytest.mark.parametrize("kind", ["uint64_param", "int64_param"])
@pytest.mark.parametrize("priority", [0, 1, 7, (1 << 63) - 1])
def test_the_priority_parameter_may_be_signed(kind: str, priority: int) -> None:
    request = good_request()
    setattr(request.parameters["priority"], kind, priority)
    assert decode(request).priority == priority


@given(st.binary(max_size=60))
def test_no_bytes_escape_parsing_as_another_error(noise: bytes) -> None:
    try:
        decode(parse(ModelInferRequest, noise))
    except ServingError:
        return
    raise AssertionError("noise is not a request that a model takes")
