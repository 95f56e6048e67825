"""Tensors as JSON has them: every datatype, no number that another one would be made of."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferResponse
from inferry_server.errors import DecodingError, InvalidRequestError, RequestTooLargeError
from inferry_server.http import json_text
from inferry_server.http.infer_request import MOST_JSON_BYTES, BinaryWanted, read_json_object
from inferry_server.http.infer_response import write_infer_response
from inferry_server.http.json_tensors import elements_text, json_from_raw, raw_from_json

INTEGERS = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]


@given(st.sampled_from(INTEGERS), st.lists(st.integers(-(1 << 65), 1 << 65), max_size=6))
def test_whole_numbers_are_taken_as_they_are_or_refused(name: str, values: list[int]) -> None:
    limits = np.iinfo(name.lower())
    if all(limits.min <= value <= limits.max for value in values):
        raw = raw_from_json(values, DATATYPES[name], tensor="x")
        assert json_from_raw(raw, DATATYPES[name], tensor="x") == values
        return
    with pytest.raises(DecodingError, match=f"input 'x': a number is no {name}"):
        raw_from_json(values, DATATYPES[name], tensor="x")


@given(st.lists(st.floats() | st.integers(-(1 << 53), 1 << 53), max_size=6))
def test_doubles_come_back_as_they_were(values: list[Any]) -> None:
    datatype = DATATYPES["FP64"]
    found = json_from_raw(raw_from_json(values, datatype, tensor="x"), datatype, tensor="x")
    np.testing.assert_array_equal(found, np.array(values, np.float64))


@given(
    st.sampled_from([*INTEGERS, "FP16", "FP32", "FP64", "BF16", "BYTES", "BOOL"]),
    st.lists(
        st.integers(-300, 70_000) | st.floats() | st.sampled_from([1 << 64, -(1 << 70), 1e39, "a", None, [1]]),
        max_size=4,
    )
    | st.just([[1], [2]]),
)
def test_data_without_truths_is_read_as_any_other(name: str, values: list[Any]) -> None:
    def read(**named: Any) -> bytes | str:
        try:
            return raw_from_json(values, DATATYPES[name], tensor="x", **named)
        except DecodingError as error:
            return str(error)

    assert read(has_truths=False) == read()


@given(st.lists(st.floats(width=32), max_size=6))
def test_bfloat16_is_the_nearest_that_there_is(values: list[float]) -> None:
    datatype = DATATYPES["BF16"]
    found = json_from_raw(raw_from_json(values, datatype, tensor="x"), datatype, tensor="x")
    for value, nearest in zip(values, found, strict=True):
        bits = np.float32(value).view(np.uint32) & np.uint32(0xFFFF0000)
        below, above = (np.uint32(bits + step).view(np.float32) for step in (0, 0x10000))
        if np.isfinite(above):
            assert abs(nearest - value) == min(abs(below - value), abs(above - value))
        else:
            assert np.isnan(nearest) == np.isnan(value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("INT32", [1.0], "must be whole numbers, as INT32 has them, not 1.0"),
        ("INT32", [1, True], "must be whole numbers, as INT32 has them, not a boolean"),
        ("INT64", [1.5, 1e20], "must be whole numbers"),
        ("INT64", [float("inf")], "must be whole numbers"),
        ("UINT8", [7, 300], "a number is no UINT8: expected whole numbers from 0 to 255, not 300"),
        ("FP32", [True], "must be numbers"),
        ("FP32", [1e39], r"1e\+39 is no FP32"),
        ("FP16", [[1], [70000]], "70000.0 is no FP16"),
        ("FP64", [10**400], "a number is no FP64"),
        ("BOOL", [1], "must be true or false, as BOOL has them, not a number"),
        ("BOOL", [True, "true"], "must be true or false, as BOOL has them, not a text"),
        ("BYTES", ["a", 1], "must be texts, as BYTES has them, not a number"),
        ("BYTES", ["\ud800"], "a text is no UTF-8"),
        ("FP32", [[1, 2], [3]], "nested irregularly or too deeply"),
        ("FP32", {"0": 1}, "data must be a list, not an object"),
    ],
)
def test_elements_of_another_kind_are_refused(name: str, data: Any, message: str) -> None:
    with pytest.raises(DecodingError, match=message):
        raw_from_json(data, DATATYPES[name], tensor="x")


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1, -(1 << 70), 10**30, 10**400])
def test_a_whole_number_of_more_than_64_bits_is_told_with_what_there_is_room_for(name: str, value: int) -> None:
    limits = np.iinfo(name.lower())
    expected = f"a number is no {name}: expected whole numbers from {limits.min} to {limits.max}, not -?[0-9]"
    for text in (f'{{"a": [1, {value}]}}', f'{{"a": [{value}]}}'):
        with pytest.raises(DecodingError, match=expected):
            raw_from_json(read_json_object(text.encode())["a"], DATATYPES[name], tensor="x")


def test_no_depth_of_lists_breaks_anything() -> None:
    data: list[Any] = [1.0]
    for _ in range(70):
        data = [data]
    with pytest.raises(DecodingError, match="too deeply"):
        raw_from_json(data, DATATYPES["FP32"], tensor="x")


def test_a_text_that_is_not_utf_8_is_told_how_to_be_asked_for() -> None:
    with pytest.raises(DecodingError, match="output 'y' is not UTF-8; ask for it with binary_data: true"):
        json_from_raw(b"\x01\x00\x00\x00\xff", DATATYPES["BYTES"], tensor="y")


def test_how_much_json_is_read_is_bounded() -> None:
    with pytest.raises(RequestTooLargeError, match="send tensors behind it, with Inference-Header-Content-Length"):
        read_json_object(b" " * (MOST_JSON_BYTES + 1))


def test_how_much_json_is_written_is_bounded() -> None:
    response = ModelInferResponse(model_name="m", raw_output_contents=[bytes(MOST_JSON_BYTES + 1)])
    response.outputs.add(name="y", datatype="UINT8", shape=[MOST_JSON_BYTES + 1])
    message = response.SerializeToString()
    with pytest.raises(InvalidRequestError, match="ask for them with binary_data: true"):
        write_infer_response(message, BinaryWanted({}))
    body, _ = write_infer_response(message, BinaryWanted({"parameters": {"binary_data_output": True}}))
    assert len(body) > MOST_JSON_BYTES


@given(
    st.lists(st.floats())
    | st.lists(st.floats(width=32))
    | st.lists(st.integers(-(1 << 63), (1 << 64) - 1))
    | st.lists(st.booleans())
    | st.lists(st.text() | st.just("null"))
)
def test_elements_are_read_as_they_were_written(elements: list[Any]) -> None:
    assert repr(json.loads(elements_text(elements))) == repr(elements)
    with pytest.MonkeyPatch.context() as without:
        without.setattr(json_text, "orjson", None)
        assert repr(json.loads(elements_text(elements))) == repr(elements)


@given(st.data(), st.sampled_from(INTEGERS), st.lists(st.integers(0, 3), max_size=4))
def test_lists_may_be_nested_as_the_tensor_is_or_not_at_all(data: st.DataObject, name: str, shape: list[int]) -> None:
    size = int(np.prod(shape))
    drawn = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    array = np.array(drawn, np.dtype(name.lower()))
    nested = array.reshape(shape or 1).tolist()
    assert raw_from_json(nested, DATATYPES[name], tensor="x") == array.tobytes()


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1], 2], [1, [2]], [[[1]], [[1], [2]]], [[], [1]], [[1, 2], []]])
@pytest.mark.parametrize("name", ["UINT8", "FP32", "BF16", "BOOL", "BYTES"])
def test_lists_of_different_lengths_are_refused(data: Any, name: str) -> None:
    with pytest.raises(DecodingError, match=r"irregularly|must be texts"):
        raw_from_json(data, DATATYPES[name], tensor="x")


@pytest.mark.parametrize("data", [[["a"], "b"], [["a"], {"b": 1}], [[["a"]], ["b"]], [["a"], ["b", "c"]], [["a"], 1]])
@pytest.mark.parametrize("name", ["UINT8", "FP32", "BF16", "BOOL", "BYTES"])
def test_a_text_is_no_list_of_letters(data: Any, name: str) -> None:
    with pytest.raises(DecodingError):
        raw_from_json(data, DATATYPES[name], tensor="x")


@pytest.mark.parametrize("text", [b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": "\\ud800"}', b'{"a": 1e400}'])
def test_what_the_fast_reader_refuses_is_read_as_by_pythons_own(text: bytes) -> None:
    assert repr(read_json_object(text)) == repr(json.loads(text))


@given(st.recursive(st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=9))  # fmt: skip
def test_json_is_read_as_by_pythons_own(value: Any) -> None:
    text = json.dumps({"a": value}).encode()
    assert repr(read_json_object(text)) == repr(json.loads(text))
