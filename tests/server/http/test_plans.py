"""Plans of infer requests and of their replies: the same bytes and the same errors as without, in any order."""

import json
from collections.abc import Sequence
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferry_proto.open_inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from inferry_server.errors import DecodingError, ServingError
from inferry_server.http import infer_plans, json_parts, repeated_texts, response_plans
from inferry_server.http.infer_plans import InferRequests
from inferry_server.http.infer_request import HEADER_LENGTH, BinaryWanted, read_infer_request
from inferry_server.http.infer_response import write_infer_response
from inferry_server.http.response_plans import InferResponses

IDS = st.sampled_from(["", "a", "é", "x" * 200, '"', None, 7, "\\"])
DATA: st.SearchStrategy[Any] = st.lists(
    st.integers(0, 300) | st.sampled_from([True, 1.5, "1", None, [1], -1]), max_size=3
) | st.sampled_from([[[1, 2], [3, 4]], 0, None, {}, "text"])


@st.composite
def inputs(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """An input as JSON has it, and what it has behind the JSON."""
    tensor = {
        "name": draw(st.sampled_from(["x", "null", "data"])),
        "shape": draw(st.sampled_from([[1, 2], [2], [], [1.0]])),
        "datatype": draw(st.sampled_from(["UINT8", "FP32", "BYTES", "NONE"])),
    }
    raw = b""
    kind = draw(st.sampled_from(["json", "json", "raw", "raw", "both", "nothing"]))
    if kind in ("json", "both"):
        tensor["data"] = draw(DATA)
    if kind in ("raw", "both"):
        raw = draw(st.binary(max_size=4))
        stated = len(raw) + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
        tensor["parameters"] = {"binary_data_size": draw(st.sampled_from([stated, stated, stated, True, 1.0]))}
    return tensor, raw


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str | None]:
    """A body, and where its JSON ends."""
    tensors = draw(st.lists(inputs(), max_size=2))
    request: dict[str, Any] = {"inputs": [tensor for tensor, _ in tensors]}
    if draw(st.booleans()):
        request["id"] = draw(IDS)
    if draw(st.booleans()):
        request["parameters"] = {"priority": draw(st.sampled_from([1, 1.0, True, None, float("inf")]))}
    if draw(st.booleans()):
        request["outputs"] = [{"name": "y", "parameters": {"binary_data": draw(st.sampled_from([True, False, 1]))}}]
    text = json.dumps(request).encode()
    behind = b"".join(raw for _, raw in tensors)
    stated = str(len(text)) if behind or draw(st.booleans()) else None
    return text + behind, draw(st.sampled_from([stated] * 8 + [None, "x", str(len(text) + len(behind) + 1)]))


def outcome(read: Any) -> tuple[object, ...]:
    try:
        message, wanted = read()
    except ServingError as error:
        return type(error), str(error)
    return message, wanted.key


@given(st.lists(bodies(), min_size=1, max_size=4), st.permutations(range(8)))
def test_requests_become_the_same_whatever_was_read_before(
    kinds: list[tuple[bytes, str | None]], order: list[int]
) -> None:
    planned = InferRequests()
    for at in order:
        body, stated = kinds[at % len(kinds)]
        headers = {} if stated is None else {HEADER_LENGTH: stated}
        by_plan = outcome(lambda: planned.read(body, stated, model="m", version="1"))  # noqa: B023 - called at once
        in_full = outcome(lambda: read_infer_request(body, headers, model="m", version="1"))  # noqa: B023
        assert parsed(by_plan) == parsed(in_full)


def parsed(found: tuple[object, ...]) -> object:
    return (ModelInferRequest.FromString(found[0]), found[1]) if isinstance(found[0], bytes) else found


def body_of(pixels: bytes, request_id: str = "", **parameters: Any) -> tuple[bytes, str]:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "UINT8", "parameters": {"binary_data_size": len(pixels)}}
    named = {"id": request_id} if request_id else {}
    text = json.dumps({"inputs": [tensor], **named, "parameters": parameters}).encode()
    return text + pixels, str(len(text))


def test_one_plan_serves_every_id_and_all_data() -> None:
    planned = InferRequests()
    for request_id in ("a", "b", "c"):
        for pixels in (b"\0\1", b"\2\3"):
            message, _ = planned.read(*body_of(pixels, request_id), model="m", version="")
            read = ModelInferRequest.FromString(message)
            assert (read.id, list(read.raw_input_contents), read.model_name) == (request_id, [pixels], "m")
    assert len(planned) == 1


@pytest.mark.parametrize("request_id", ["", "a"])
def test_a_plan_lets_no_fault_pass(request_id: str) -> None:
    planned = InferRequests()
    body, stated = body_of(b"\0\1", request_id)
    text, header = body[:-2], json.loads(body[:-2])
    for _ in range(2):
        planned.read(body, stated, model="m", version="")
    for behind in (b"", b"\0", b"\0\1\2"):
        with pytest.raises(DecodingError, match="behind the JSON"):
            planned.read(text + behind, stated, model="m", version="")
    for wrong in ({"id": 7}, {"inputs": 3}, {"inputs": [3]}):
        spoiled = json.dumps(header | wrong).encode()
        with pytest.raises(ServingError):
            planned.read(spoiled + b"\0\1", str(len(spoiled)), model="m", version="")


@pytest.mark.parametrize("datatype", ["UINT8", "FP32", "INT64"])
def test_no_truth_is_taken_for_a_number(datatype: str) -> None:
    planned = InferRequests()

    def read(text: str) -> bytes:
        return planned.read(text.encode(), None, model="m", version="")[0]

    for more in ("", ', "id": "true"', ', "outputs": [{"name": "y", "parameters": {"binary_data": true}}]'):
        for name in ("x", "true", "tru\\u0065", "t1r,u[]e", "t rue"):
            of = f'{{"inputs": [{{"name": "{name}", "shape": [1], "datatype": "{datatype}", "data": [%s]}}]{more}}}'
            assert read(of % "1") == read(of % "1")
            for truth in ("true", "false"):
                with pytest.raises(DecodingError):
                    read(of % truth)


SPELLINGS = (
    "0", "-0", "-0.0", "1E5", "1e-400", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "nan", "256", "-1", "0.5",
    "9007199254740993", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "1e308", "65504",
    "65520", "3.4028236e38", "01", "+1", ".5", "1.", "0x1", "1_0", '"1"', "null", "true", "[1]", "[]", "{}", "[[1]",
    "1,", "[" * 70 + "1" + "]" * 70, "[" * 2000 + "]" * 2000, '"' + "9" * 400 + '"', "9" * 400, "1" + "0" * 400 + ".5",
)  # fmt: skip


@pytest.mark.parametrize(
    "datatype", ["UINT8", "INT8", "INT64", "UINT64", "FP16", "FP32", "FP64", "BF16", "BOOL", "BYTES"]
)
def test_a_number_is_the_same_however_it_is_spelled_and_whatever_was_read_before(datatype: str) -> None:
    planned = InferRequests()
    for spelled in (*SPELLINGS, *SPELLINGS):
        for data in (f"[1, {spelled}]", f"[{spelled}, 1]", f"[[1, 1], [1, {spelled}]]", f"[[1], {spelled}]", spelled):
            text = f'{{"inputs": [{{"name": "x", "shape": [2], "datatype": "{datatype}", "data": {data}}}]}}'.encode()
            by_plan = outcome(lambda: planned.read(text, None, model="m", version="1"))  # noqa: B023 - called at once
            in_full = outcome(lambda: read_infer_request(text, {}, model="m", version="1"))  # noqa: B023
            assert parsed(by_plan) == parsed(in_full), data[:80]


def text_of(data: str, *, before: str = "", behind: str = "") -> bytes:
    tensor = f'{{{before} "name": "x", "shape": [2], "datatype": "UINT8", "data": {data}{behind}}}'
    return f'{{"inputs": [{tensor}]}}'.encode()


def test_a_list_of_numbers_in_a_text_that_comes_again_is_all_that_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = InferRequests()
    for data in ("[1, 2]", "[3, 4]"):
        planned.read(text_of(data), None, model="m", version="")
    reader = mock.Mock(wraps=orjson)
    monkeypatch.setattr(repeated_texts, "orjson", reader)
    monkeypatch.setattr(json_parts, "orjson", reader)
    for data, pixels in (("[5, 6]", b"\5\6"), ("[[7],[8]]", b"\7\10"), ("[ ]", b"")):
        message, _ = planned.read(text_of(data), None, model="m", version="")
        assert list(ModelInferRequest.FromString(message).raw_input_contents) == [pixels]
    assert [text for (text,), _ in reader.loads.call_args_list] == [b"[5, 6]", b"[[7],[8]]", b"[ ]"]


def test_an_id_at_the_beginning_costs_no_parsing_of_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = InferRequests()
    tensor = '{"name": "x", "shape": [2], "datatype": "UINT8", "data": %s}'
    behind = {"name": "x", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}}

    def read(request_id: str, pixels: list[int]) -> list[ModelInferRequest]:
        text = f'{{"id":{json.dumps(request_id)}, "inputs":[{tensor % json.dumps(pixels)}]}}'.encode()
        header = json.dumps({"id": request_id, "inputs": [behind]}).encode()
        messages = (
            planned.read(text, None, model="m", version="")[0],
            planned.read(header + bytes(pixels), str(len(header)), model="m", version="")[0],
        )
        return [ModelInferRequest.FromString(message) for message in messages]

    for at in range(2):
        read(f"learnt {at}", [at, at])
    reader = mock.Mock(wraps=orjson)
    monkeypatch.setattr(repeated_texts, "orjson", reader)
    monkeypatch.setattr(json_parts, "orjson", reader)
    for request_id in ("", "7f3c-aa", "a,b: {c} [1] 'd'"):
        for found in read(request_id, [5, 6]):
            assert (found.id, list(found.raw_input_contents)) == (request_id, [b"\5\6"])
    assert [text for (text,), _ in reader.loads.call_args_list] == [b"[5, 6]"] * 3


BEGINNINGS = (
    "{%s}", '{"id": "a", %s}', '{"id":"b",%s}', '{"id" : "",  %s}', '{"id":"\\u0061", %s}', '{"id":"é", %s}',
    '{"id": "a", "id": "b", %s}', '{"id": "b", "id": "b",%s}', '{"id": "a", %s, "id": "c"}', '{%s, "id": ""}',
    '{ %s, "id": ""}', '{"id": "a", %s, "id": ""}', '{"id": "a", %s, "\\u0069d": ""}', '{ %s, "\\u0069d": ""}',
    '{"id": 7, %s}', '{"id": "a", "id": 7, %s}', '{"id": null, %s}', '{"id": "a", %s, "id": null}',
    '{"id": "a" %s}', '{"id": "a",, %s}', '{"id": "a\n", %s}', '{"id": "' + "x" * 300 + '", %s}', '{"id": "\x7f", %s}',
    '{"id": "a"}, %s}', '{"id": "\\", %s}', '[{"id": "a", %s}', '{"id": "a", %s}}', '{"id": "a", {%s}', '{"id": "a",',
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(BEGINNINGS), st.booleans()), min_size=2, max_size=12))
@example([(text, as_bytes) for as_bytes in (False, True) for text in BEGINNINGS * 3])
def test_an_id_is_what_the_request_says_wherever_it_stands_and_whatever_was_read_before(
    order: list[tuple[str, bool]],
) -> None:
    expect_same_as_read_in_full(order)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_an_id_is_what_the_request_says_when_its_text_comes_again(beginning: str, as_bytes: bool) -> None:
    expect_same_as_read_in_full([(beginning, as_bytes)] * 3)


def expect_same_as_read_in_full(order: Sequence[tuple[str, bool]]) -> None:
    planned = InferRequests()
    for beginning, as_bytes in order:
        described = '"parameters": {"binary_data_size": 2}' if as_bytes else '"data": [1, 2]'
        inputs = f'"inputs": [{{"name": "x", "shape": [2], "datatype": "UINT8", {described}}}]'
        text = beginning.replace("%s", inputs).encode()
        body, stated = (text + b"\1\2", str(len(text))) if as_bytes else (text, None)
        headers = {} if stated is None else {HEADER_LENGTH: stated}
        by_plan = outcome(lambda: planned.read(body, stated, model="m", version="1"))  # noqa: B023 - called at once
        in_full = outcome(lambda: read_infer_request(body, headers, model="m", version="1"))  # noqa: B023
        assert parsed(by_plan) == parsed(in_full), text


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("", ', "parameters": {"data": "[1]"}'),
        ('"parameters": {"a": "\\"data\\":[1]"},', ""),
        ('"parameters": {"data": "x"},', ""),
        ('"data":[9, 9],', ""),
        ("", ', "data":[9, 9]'),
        ("", '}, {"name": "y", "shape": [1], "datatype": "UINT8", "data": [9]'),
        ("", '}, {"name": "y", "shape": [1], "datatype": "UINT8", "data":[9]'),
    ],
)
def test_what_stands_around_the_data_is_part_of_the_request(before: str, behind: str) -> None:
    planned = InferRequests()
    for data in (
        "[1, 2]",
        "[3, 4]",
        "[5, 6]",
        "[true, 1]",
        "[1, 2], [3]",
        "[1, 300]",
        '["us"]',
        "[7, 8]",
        "[",
        "[0]",
    ) * 2:
        for text in (text_of(data, before=before, behind=behind), text_of(data), text_of(data, behind=', "q": 1')):
            by_plan = outcome(lambda: planned.read(text, None, model="m", version="1"))  # noqa: B023 - called at once
            in_full = outcome(lambda: read_infer_request(text, {}, model="m", version="1"))  # noqa: B023
            assert parsed(by_plan) == parsed(in_full), text


def test_a_text_that_ends_otherwise_is_read_as_it_says() -> None:
    planned = InferRequests()
    for priority in (1, 1, 2, 1):
        text = text_of("[1, 2]", behind=f'}}], "parameters": {{"priority": {priority}}}, "outputs": [{{')
        text = text.replace(b"[{}]", b'[{"name": "y"}]')
        message, _ = planned.read(text, None, model="m", version="")
        assert ModelInferRequest.FromString(message).parameters["priority"].int64_param == priority


def test_texts_that_come_again_are_of_one_path_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_plans, "_MOST_PLANS", 8)
    planned = InferRequests()
    for blanks in range(100):
        for model in ("m", "n") * 2:
            message, _ = planned.read(text_of("[1, 2]", before=" " * blanks), None, model=model, version="")
            assert ModelInferRequest.FromString(message).model_name == model
        assert len(planned._texts) <= 8
    planned.read(text_of("[1, 2]", before=" " * 5000), None, model="m", version="")
    assert len(planned._texts) <= 8


def test_plans_are_of_one_path_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = InferRequests()
    for model, version in (("m", "1"), ("m", "2"), ("n", "1")):
        message, _ = planned.read(*body_of(b"\0\1"), model=model, version=version)
        assert ModelInferRequest.FromString(message).model_name == model
        assert ModelInferRequest.FromString(message).model_version == version
    monkeypatch.setattr(infer_plans, "_MOST_PLANS", 8)
    for priority in range(100):
        planned.read(*body_of(b"\0\1", priority=priority), model="m", version="")
        assert len(planned) <= 8
    planned.read(*body_of(b"\0\1", "", more="x" * 5000), model="m", version="")
    assert len(planned) <= 8


def response(raws: list[bytes], request_id: str, *, shared: bool, more: bytes) -> bytes:
    message = ModelInferResponse(model_name="m", model_version="1", id=request_id)
    for at, raw in enumerate(raws):
        tensor = message.outputs.add(name=f"y{at}", datatype="UINT8", shape=[1, len(raw)])
        if shared and at == 0:
            tensor.parameters["shared_memory_region"].string_param = "r"
        message.raw_output_contents.append(b"" if shared and at == 0 else raw)
    return message.SerializeToString() + more


VARIANT = ModelInferResponse(model_name="v", parameters={"variant": InferParameter(string_param="int8")})
REPLIES = st.tuples(
    st.lists(st.sampled_from([b"\0", b"\1\2", b"", b"x" * 200]), max_size=3),
    st.sampled_from(["", "a", "é", '"', response_plans._DATA, "\\u0000"]),
    st.sampled_from([False, False, True]),
    st.sampled_from([b"", b"", VARIANT.SerializeToString()]),
    st.sampled_from([{}, {"parameters": {"binary_data_output": True}}, {
        "outputs": [{"name": "y0", "parameters": {"binary_data": True}}]
    }]),
)  # fmt: skip


def test_texts_of_any_length_are_written_by_one_plan_or_none() -> None:
    planned, wanted = InferResponses(), BinaryWanted({"parameters": {"binary_data_output": True}})
    for text in (b"a", b"abc", b"", b"a"):
        message = ModelInferResponse(model_name="m")
        message.outputs.add(name="y", datatype="BYTES", shape=[1])
        message.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
        sent = message.SerializeToString()
        assert planned.write(sent, wanted) == write_infer_response(sent, wanted)


@given(st.lists(REPLIES, min_size=1, max_size=6))
@example([([b"\1"], response_plans._DATA, False, b"", {})])
def test_replies_are_the_same_whatever_was_written_before(kinds: list[Any]) -> None:
    planned = InferResponses()
    for raws, request_id, shared, more, request in kinds * 2:
        message, wanted = response(raws, request_id, shared=shared, more=more), BinaryWanted(request)
        assert planned.write(message, wanted) == write_infer_response(message, wanted)


def test_one_plan_serves_every_id_and_data_of_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = InferResponses()
    for request_id in ("", "a", "b"):
        for pixel in (b"\0", b"\1"):
            planned.write(response([pixel], request_id, shared=False, more=b""), BinaryWanted({}))
    assert len(planned) == 1
    monkeypatch.setattr(response_plans, "_MOST_PLANS", 8)
    for rows in range(100):
        planned.write(response([bytes(rows)], "", shared=False, more=b""), BinaryWanted({}))
        assert len(planned) <= 8
