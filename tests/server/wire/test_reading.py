"""Requests that are decoded by what an earlier one told: never other than in full."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from inferry_server.batching.request import form_of
from inferry_server.signature import Signature, TensorSpec
from inferry_server.wire.decode import DecodedRequest, RequestedOutput, decode_infer_request
from inferry_server.wire.encode import encode_infer_response, response_template, varint
from inferry_server.wire.reading import IncomingRequest, InferPlan, KnownBeginnings, PlanCache, RequestReader, cut_up
from inferry_server.wire.shared_memory import SharedMemoryRegions

SIGNATURE = Signature(
    (TensorSpec("x", DATATYPES["FP32"], (-1, 3)), TensorSpec("mask", DATATYPES["BOOL"], (-1, -1))),
    (TensorSpec("y", DATATYPES["FP32"], (-1, 2)), TensorSpec("z", DATATYPES["INT64"], (-1,))),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NO_REGIONS = SharedMemoryRegions(allowed=False)


def request(rows: int = 1, width: int = 2, seed: int = 0, **fields: Any) -> ModelInferRequest:
    rng = np.random.default_rng(seed)
    message = ModelInferRequest(model_name="m", **fields)
    message.inputs.add(name="x", datatype="FP32", shape=[rows, 3])
    message.inputs.add(name="mask", datatype="BOOL", shape=[rows, width])
    message.raw_input_contents.append(rng.random((rows, 3), np.float32).tobytes())
    message.raw_input_contents.append(rng.integers(0, 2, (rows, width), np.uint8).tobytes())
    return message


def decode(message: bytes) -> DecodedRequest:
    parsed = ModelInferRequest.FromString(message)
    return decode_infer_request(parsed, SIGNATURE, model="m", max_request_rows=64, regions=NO_REGIONS)


def learn(cache: PlanCache, message: bytes) -> None:
    incoming = cut_up(message)
    assert incoming is not None
    decoded = decode(message)
    template = response_template("m", "1", decoded.outputs)
    assert template is not None
    cache.learn("1", incoming, InferPlan(decoded, template, SIGNATURE))


def said(incoming: IncomingRequest | None) -> Any:
    """All that was found out about a request."""
    if incoming is None:
        return None
    names = "message", "model_name", "model_version", "request_id", "header", "raw_starts", "raw_sizes"
    return [getattr(incoming, name) for name in names]


def contents(incoming: IncomingRequest) -> list[bytes]:
    places = zip(incoming.raw_starts, incoming.raw_sizes, strict=True)
    return [bytes(incoming.message[start : start + size]) for start, size in places]


def planned(
    cache: PlanCache, incoming: IncomingRequest, *, version: str = "1", signature: Signature = SIGNATURE
) -> InferPlan | None:
    assert incoming.header is not None
    return cache.get(version, incoming.header, signature)


@given(name=TEXTS, version=TEXTS, request_id=TEXTS, raw=st.lists(st.binary(max_size=300), max_size=3))
def test_what_is_cut_out_is_what_parsing_says(name: str, version: str, request_id: str, raw: list[bytes]) -> None:
    message = ModelInferRequest(model_name=name, model_version=version, id=request_id, raw_input_contents=raw)
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    message.outputs.add(name="y")
    message.parameters["timeout"].int64_param = 7
    wire = message.SerializeToString(deterministic=True)
    incoming = cut_up(wire)
    assert incoming is not None
    assert (incoming.model_name, incoming.model_version, incoming.request_id) == (name, version, request_id)
    assert contents(incoming) == raw
    assert incoming.header is not None
    rest = ModelInferRequest.FromString(incoming.header)
    message.ClearField("id")
    message.ClearField("raw_input_contents")
    assert rest == message


@given(st.binary(max_size=60) | st.builds(lambda rows: request(rows).SerializeToString(), st.integers(1, 3)), st.data())
def test_a_view_is_cut_up_as_its_bytes_are(message: bytes, data: st.DataObject) -> None:
    cut = message[: data.draw(st.integers(0, len(message)))]
    assert said(cut_up(memoryview(cut))) == said(cut_up(cut))


def test_a_plan_knows_the_form_of_the_inputs_that_it_reads() -> None:
    cache = PlanCache()
    learn(cache, request(rows=3).SerializeToString())
    incoming = cut_up(request(rows=3, seed=1).SerializeToString())
    assert incoming is not None
    plan = planned(cache, incoming)
    assert plan is not None
    inputs = plan.read(incoming)
    assert inputs is not None
    assert plan.form == form_of(inputs, 3) == (3 * (3 * 4 + 2), ((3,), (2,)), (((3,), (2,)), 3 * 4 + 2))


def single(raw: bytes, model: str = "m", **fields: Any) -> bytes:
    message = ModelInferRequest(model_name=model, raw_input_contents=[raw], **fields)
    message.inputs.add(name="x", datatype="UINT8", shape=[1, 3])
    return message.SerializeToString()


@given(
    st.lists(
        st.builds(
            lambda raw, model, request_id, more, cut: (single(raw, model, id=request_id) + more)[cut:],
            st.binary(min_size=2, max_size=5),
            st.sampled_from(["m", "mm", "m\u00e9"]),
            st.sampled_from(["", "", "7", "8", "\u00e9", "12", "x" * 130, "y" * 130]),
            st.sampled_from([b"", b"", b"abc", b"\x3a\x02ab"]),  # trailing bytes, and one more of the raw contents
            st.sampled_from([0, 0, 0, 1]),
        ),
        min_size=2,
        max_size=30,
    )
)
def test_a_request_that_begins_like_another_is_cut_up_alike(messages: list[bytes]) -> None:
    known = KnownBeginnings()
    for message in messages * 2:
        expected = cut_up(message)
        assert said(known.find(message)) in (None, said(expected))
        if expected is not None:
            known.learn(expected)


def test_requests_are_known_by_how_they_begin_whatever_their_id() -> None:
    known = KnownBeginnings()
    for message in (single(b"abc", id="7", model_version="3"), single(b"abc", id="a" * 200)):
        incoming = cut_up(message)
        assert incoming is not None
        known.learn(incoming)
    for request_id in ("8", "b" * 200, "\u00e9" * 100):
        message = single(b"xyz", id=request_id, model_version="3" if request_id == "8" else "")
        assert said(known.find(message)) == said(cut_up(message))
        assert said(known.find(memoryview(message))) == said(cut_up(memoryview(message)))
    spoiled = single(b"xyz", id="~", model_version="3").replace(b"~", b"\xff")
    unknown = single(b"xyz", id="88", model_version="3"), single(b"xyz", id="8", model_version="4"), spoiled
    assert [known.find(message) for message in unknown] == [None] * 3


def test_requests_without_an_id_are_known_by_how_they_begin() -> None:
    known = KnownBeginnings()
    for message in (single(b"abc"), request().SerializeToString()):
        incoming = cut_up(message)
        assert incoming is not None
        known.learn(incoming)
    assert said(known.find(single(b"xyz"))) == said(cut_up(single(b"xyz")))
    assert said(known.find(memoryview(single(b"xyz")))) == said(cut_up(memoryview(single(b"xyz"))))
    others = [single(b"abcd"), single(b"xyz", "n"), single(b"abc", id="7"), single(b"abc") + b"c"]
    assert [known.find(other) for other in (*others, request().SerializeToString())] == [None] * 5


def test_beginnings_that_are_known_are_bounded() -> None:
    known = KnownBeginnings()
    for number in range(3000):
        incoming = cut_up(single(b"abc", f"model-{number}"))
        assert incoming is not None
        known.learn(incoming)
    assert sum(len(beginnings) for *_, beginnings in known._known.values()) <= 1024
    assert known.find(single(b"abc", "model-2999")) is not None


def test_requests_that_name_their_inputs_in_another_order_can_share_a_batch() -> None:
    cache = PlanCache()
    usual = request(rows=2, width=3)  # both inputs of one shape
    other = ModelInferRequest(model_name="m", inputs=reversed(usual.inputs))
    other.raw_input_contents.extend(reversed(usual.raw_input_contents))
    queued = []
    for message in (usual.SerializeToString(), other.SerializeToString()):
        learn(cache, message)
        incoming = cut_up(message)
        assert incoming is not None
        plan = planned(cache, incoming)
        assert plan is not None
        for inputs in (plan.read(incoming), decode(message).inputs):
            assert inputs is not None
            np.testing.assert_array_equal(inputs["x"], np.frombuffer(usual.raw_input_contents[0], "f4").reshape(2, 3))
            queued.append(list(inputs))
    assert queued == [["x", "mask"]] * 4


@given(st.binary(max_size=80))
def test_bytes_that_are_no_request_are_not_cut_up_or_parse_to_the_same(wire: bytes) -> None:
    incoming = cut_up(wire)
    if incoming is None:
        return
    try:
        parsed = ModelInferRequest.FromString(wire)
    except Exception:  # noqa: BLE001 - protobuf's error; the header is not a valid one, and so is never learned
        return
    assert (incoming.model_name, incoming.model_version) == (parsed.model_name, parsed.model_version)
    assert contents(incoming) == list(parsed.raw_input_contents)


def test_whatever_is_unusual_is_left_to_the_parser() -> None:
    wire = request().SerializeToString()
    unusual = {
        "a repeated name": wire + b"\x0a\x01n",
        "an unknown field": wire + b"\x42\x00",
        "a number where a text belongs": b"\x08\x01" + wire,
        "an id that is no text": b"\x1a\x01\xff",
        "a field that is cut off": wire[:-1],
        "a length without end": b"\x0a\xff\xff\xff\xff\xff\xff",
        "fields in another order": b"\x1a\x01i\x0a\x01m",
    }
    assert {name: cut_up(message) for name, message in unusual.items()} == dict.fromkeys(unusual)
    repeated = RequestReader(NO_REGIONS).receive(unusual["a repeated name"], 0.0, None)
    assert (repeated.model_name, repeated.header) == ("n", None)


@given(rows=st.integers(1, 64), width=st.integers(0, 5), seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)))
def test_a_plan_reads_what_decoding_in_full_reads(rows: int, width: int, seeds: tuple[int, int]) -> None:
    cache = PlanCache()
    first = request(rows, width, seeds[0], id="first").SerializeToString()
    learn(cache, first)
    for seed, request_id in zip(seeds, ("", "another, longer id"), strict=True):
        message = request(rows, width, seed, id=request_id).SerializeToString()
        incoming = cut_up(message)
        assert incoming is not None
        plan = planned(cache, incoming)
        assert plan is not None
        inputs, full = plan.read(incoming), decode(message)
        assert inputs is not None
        assert list(inputs) == list(full.inputs)
        assert all(np.array_equal(inputs[name], full.inputs[name]) for name in inputs)
        assert all(inputs[name].dtype == full.inputs[name].dtype for name in inputs)
        assert plan.rows == full.rows


def test_a_plan_holds_for_no_other_header_and_no_other_sizes() -> None:
    cache = PlanCache()
    learn(cache, request(2).SerializeToString())
    for other in (request(3), request(2, width=3), request(2, model_version="2")):
        incoming = cut_up(other.SerializeToString())
        assert incoming is not None
        assert planned(cache, incoming) is None
    short = request(2)
    short.raw_input_contents[1] = b"\x01"
    wire = short.SerializeToString()
    incoming = cut_up(wire)
    assert incoming is not None
    plan = planned(cache, incoming)
    assert plan is not None
    assert plan.read(incoming) is None


def test_a_plan_holds_for_no_other_version_and_no_other_load_of_it() -> None:
    cache = PlanCache()
    wire = request().SerializeToString()
    learn(cache, wire)
    incoming = cut_up(wire)
    assert incoming is not None
    loaded_again = Signature(SIGNATURE.inputs, SIGNATURE.outputs)
    assert planned(cache, incoming) is not None
    assert planned(cache, incoming, version="2") is None
    assert planned(cache, incoming, signature=loaded_again) is None


def test_contents_in_the_header_are_never_a_plan() -> None:
    typed = ModelInferRequest(model_name="m")
    for name, datatype, shape in (("x", "FP32", [1, 3]), ("mask", "BOOL", [1, 1])):
        typed.inputs.add(name=name, datatype=datatype, shape=shape)
    typed.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    typed.inputs[1].contents.bool_contents.append(True)
    wire = typed.SerializeToString()
    cache = PlanCache()
    learn(cache, wire)
    incoming = cut_up(wire)
    assert incoming is not None
    assert planned(cache, incoming) is None


def test_texts_are_never_a_plan_for_their_size_is_not_their_shapes() -> None:
    signature = Signature((TensorSpec("t", DATATYPES["BYTES"], (-1,)),), SIGNATURE.outputs)
    message = ModelInferRequest(model_name="m", raw_input_contents=[b"\x02\0\0\0ab"])
    message.inputs.add(name="t", datatype="BYTES", shape=[1])
    incoming = cut_up(message.SerializeToString())
    assert incoming is not None
    decoded = decode_infer_request(message, signature, model="m", max_request_rows=64, regions=NO_REGIONS)
    template = response_template("m", "1", decoded.outputs)
    assert template is not None
    cache = PlanCache()
    cache.learn("1", incoming, InferPlan(decoded, template, signature))
    assert planned(cache, incoming, signature=signature) is None


def test_the_number_of_plans_is_bounded() -> None:
    cache = PlanCache()
    for i in range(3000):
        learn(cache, request(1, model_version=str(i)).SerializeToString())
    assert len(cache) <= 1024


@given(rows=st.integers(0, 40), request_id=TEXTS, reverse=st.booleans())
def test_a_template_writes_what_protobuf_writes(rows: int, request_id: str, *, reverse: bool) -> None:
    specs = SIGNATURE.outputs[::-1] if reverse else SIGNATURE.outputs
    requested = [RequestedOutput(spec) for spec in specs]
    template = response_template("m", "3", requested)
    assert template is not None
    rng = np.random.default_rng(rows)
    outputs = {
        "y": rng.random((2, rows), np.float32).T,  # not contiguous
        "z": rng.integers(0, 9, rows).astype(np.int32),  # another datatype than stated
    }
    asked = ModelInferRequest(model_name="m", id=request_id)
    expected = encode_infer_response(asked, requested, outputs, version="3", labels={}, batched=True)
    for _ in range(2):
        assert ModelInferResponse.FromString(template.encode(request_id, outputs)) == expected


def test_classes_and_texts_have_no_template() -> None:
    text = TensorSpec("t", DATATYPES["BYTES"], (-1,))
    assert response_template("m", "1", [RequestedOutput(SIGNATURE.outputs[0], classes=2)]) is None
    assert response_template("m", "1", [RequestedOutput(text)]) is None


@given(st.integers(0, 2**31 - 1))
def test_a_length_is_written_as_protobuf_writes_it(size: int) -> None:
    message = ModelInferRequest()
    message.parameters["p"].uint64_param = size
    assert message.SerializeToString().endswith(varint(size))
