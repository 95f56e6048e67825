import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from inferry_client.errors import InvalidRequestError
from inferry_client.messages import questions, replies, requests
from inferry_client.results import InferResult
from inferry_proto import classifier_pb2


def test_pictures_travel_encoded_or_as_pixels() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    rgb = np.zeros((4, 5, 3), np.uint8)
    call = requests.classify("mnist", [b"a jpeg", grey, rgb], version="2", top_k=4)
    assert call.request == classifier_pb2.ClassifyRequest(
        model_name="mnist",
        model_version="2",
        top_k=4,
        images=[
            classifier_pb2.Image(encoded=b"a jpeg"),
            classifier_pb2.Image(pixels=classifier_pb2.Pixels(height=2, width=3, channels=1, data=bytes(range(6)))),
            classifier_pb2.Image(pixels=classifier_pb2.Pixels(height=4, width=5, channels=3, data=bytes(60))),
        ],
    )
    assert call.asked == "classify 3 pictures with model 'mnist' version '2'"


def test_a_batch_array_is_a_sequence_of_pictures() -> None:
    call = requests.classify("mnist", np.zeros((3, 2, 2, 1), np.uint8))
    assert "3 pictures" in call.asked


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (7, "images is a int; expected a path, an encoded picture"),
        ([], "images is empty"),
        ([b"x", "path.png"], "image 1 is a str"),
        ([np.zeros((2, 2), np.float32)], "image 0 is float32"),
        ([np.zeros((2, 2, 4), np.uint8)], r"shape \(2, 2, 4\)"),
        ([np.zeros((0, 2), np.uint8)], r"shape \(0, 2\)"),
    ],
)
def test_what_is_no_picture_is_named_before_it_is_sent(images: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        requests.classify("mnist", images)


@pytest.mark.parametrize("top_k", [0, -1, 2**32])
def test_a_top_k_that_no_message_carries_is_refused(top_k: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"top_k is {top_k}; expected 1 to 4294967295"):
        requests.classify("mnist", [b"x"], top_k=top_k)
    assert requests.classify("mnist", [b"x"], top_k=2**32 - 1).request.top_k == 2**32 - 1  # type: ignore[attr-defined]


def test_tensors_travel_raw_in_the_order_of_the_inputs() -> None:
    inputs: dict[str, NDArray[Any]] = {"b": np.array([[1, 2]], ">i4"), "a": np.array([b"xy"], object)}
    request: Any = requests.infer("m", inputs, outputs=["y"]).request
    assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [
        ("b", "INT32", [1, 2]),
        ("a", "BYTES", [1]),
    ]
    assert list(request.raw_input_contents) == [b"\1\0\0\0\2\0\0\0", b"\2\0\0\0xy"]
    assert [output.name for output in request.outputs] == ["y"]


@pytest.mark.parametrize("array", [np.zeros(2, np.complex64), [1, 2], np.array([1.5, None], object)])
def test_an_array_that_the_protocol_cannot_carry_is_named(array: Any) -> None:
    with pytest.raises(InvalidRequestError, match="input 'x' of model 'm' cannot be sent"):
        requests.infer("m", {"x": array}).request  # noqa: B018 - it is built when it is first asked for


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"Bad Key": "x"}, "'bad key'; expected letters, digits"),
        ({"grpc-status": "0"}, "'grpc-status'; expected"),
        ({"k": "two\nlines"}, "'k' holds what a header cannot carry"),
        ({"k": "é"}, "'k' holds what a header cannot carry"),
        ({"k": b"x"}, "'k' is a bytes; expected text"),
        ({"k-bin": "x"}, "'k-bin' is a str; expected bytes"),
    ],
)
def test_metadata_that_no_header_can_carry_is_named(metadata: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        questions.server_live(metadata=metadata)


X = {"x": np.zeros((1, 2), np.float32)}
_infer: Any = requests.infer
_classify: Any = requests.classify
_questions: Any = questions


class OtherTensor:
    """As libraries other than NumPy have them."""

    shape, ndim, dtype = (1, 2), 2, "uint8 of another library"


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: _infer(5, X), "model is 5; expected text"),
        (lambda: _infer("\ud800", X), "model is '.*', half of a character"),
        (lambda: _infer("m", X, version=1), "version is 1; expected text"),
        (lambda: _infer("m", X, request_id=7), "request_id is 7; expected text"),
        (lambda: _infer("m", X["x"]), "inputs is a ndarray; expected arrays by their inputs' names"),
        (lambda: _infer("m", None), "inputs is a NoneType"),
        (lambda: _infer("m", {"x": [[1, 2]]}), "input 'x' .* it is a list; expected a NumPy array"),
        (lambda: _infer("m", {"x": OtherTensor()}), "input 'x' .* it is a OtherTensor; expected a NumPy array"),
        (lambda: _infer("m", {1: X["x"]}), "the name of an input is 1; expected text"),
        (lambda: _infer("m", {"x": np.ma.masked_array(X["x"])}), "input 'x' .* masked array"),
        (lambda: _infer("m", X, outputs="y"), r"outputs is 'y'; expected a sequence of names, like \['y'\]"),
        (lambda: _infer("m", X, outputs=[1]), "the name of an output is 1"),
        (lambda: _infer("m", X, priority=1.5), "priority is 1.5; expected 0 to"),
        (lambda: _infer("m", X, priority="1"), "priority is '1'; expected 0 to"),
        (lambda: _infer("m", X, parameters=[1]), r"parameters is \[1\]; expected values by their names"),
        (lambda: _infer("m", X, parameters={1: 1}), "the name of a parameter is 1"),
        (lambda: _infer("m", X, parameters={"p": "\ud800"}), "parameter 'p' is"),
        (lambda: _infer("m", X, timeout_s="1"), "timeout_s is '1'; expected more than 0"),
        (lambda: _infer("m", X, timeout_s=0), "timeout_s is 0; expected more than 0"),
        (lambda: _infer("m", X, metadata="ab"), "metadata is 'ab'; expected keys with their values"),
        (lambda: _classify(5, b"x"), "model is 5; expected text"),
        (lambda: _classify("m", b"x", version=1), "version is 1; expected text"),
        (lambda: _classify("m", b"x", top_k="3"), "top_k is '3'; expected 1 to"),
        (lambda: _classify("m", b"x", top_k=1.5), "top_k is 1.5; expected 1 to"),
        (lambda: _classify("m", b"x", min_probability="1"), "min_probability is '1'; expected 0 to 1"),
        (lambda: _classify("m", {"a": b"x"}), "images is a dict; expected a path"),
        (lambda: _classify("m", io.BytesIO(b"x")), "images is a BytesIO; expected a path"),
        (lambda: _classify("m", np.zeros((5, 6, 4), np.uint8)), "of 4 channels; expected 1 or 3"),
        (lambda: _classify("m", np.zeros((5, 6, 2), np.uint8)), "of 2 channels; expected 1 or 3"),
        (lambda: _questions.describe_model(5), "model is 5; expected text"),
        (lambda: _questions.model_ready("m", version=1), "version is 1; expected text"),
        (lambda: _questions.explain(limit=-1), "limit is -1; expected 0 to"),
        (lambda: _questions.explain(limit="1"), "limit is '1'; expected 0 to"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_name(build: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        build().request  # noqa: B018 - it is built when it is first asked for


def test_no_outputs_and_no_version_may_be_none() -> None:
    message: Any = _infer("m", X, outputs=None, version=None).request
    assert (list(message.outputs), message.model_version) == ([], "")


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa", "I", "I;16L", "F", "HSV"])
def test_a_pil_image_of_any_mode_travels_with_its_transparency(mode: str) -> None:
    levels = np.linspace(0, 255, 48).reshape(6, 8)
    rgba = Image.fromarray(np.stack([levels] * 4, axis=2).astype(np.uint8), "RGBA")
    sixteen = (levels * 257).astype(np.uint16)
    made = {
        "La": lambda: rgba.convert("LA").convert("La"),
        "I": lambda: Image.fromarray(sixteen.astype(np.int32)),
        "I;16L": lambda: Image.frombytes("I;16L", (8, 6), sixteen.astype("<u2").tobytes()),
        "F": lambda: Image.fromarray(levels.astype(np.float32)),
        "HSV": lambda: rgba.convert("RGB").convert("HSV"),
    }
    sent: Any = requests.classify("m", made.get(mode, lambda: rgba.convert(mode))()).request
    with Image.open(io.BytesIO(sent.images[0].encoded)) as arrived:
        assert arrived.has_transparency_data is (mode in ("PA", "La", "RGBa"))
        assert arrived.mode.startswith("I") is mode.startswith("I")
        if mode.startswith("I"):
            np.testing.assert_array_equal(np.asarray(arrived), sixteen)


def test_a_pil_image_whose_file_is_closed_is_named(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4)).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        pass
    with pytest.raises(InvalidRequestError, match="image 0 is a PIL image that cannot be read"):
        requests.classify("m", picture)


def test_an_option_that_no_call_has_is_never_ignored() -> None:
    misspelt: Any = {"timeot_s": 1}
    with pytest.raises(
        TypeError, match="'timeot_s' is no option of a call; known are timeout_s, metadata, traceparent"
    ):
        requests.infer("m", {}, **misspelt)


def test_what_variants_are_accepted_travels_with_the_request() -> None:
    for accepted, text in ((True, "true"), (False, "false"), ("int8", "int8"), (["int8", "float16"], "int8,float16")):
        tensors: Any = requests.infer("m", {"x": np.zeros((1, 2))}, accept_variant=accepted)
        assert tensors.request.parameters["accept_variant"].string_param == text
        assert tensors.joint is None
        pictures: Any = requests.classify("m", [b"x"], accept_variant=accepted)
        assert pictures.request.accept_variant == text
    silent: Any = requests.infer("m", {"x": np.zeros((1, 2))})
    assert not silent.request.parameters


def test_pictures_whose_callers_accept_other_variants_do_not_travel_together() -> None:
    assert len({requests.classify("m", [b"x"], accept_variant=one).joint for one in (None, True, "int8")}) == 3
    assert len({requests.classify("m", [bytes(n)] * n).joint for n in (1, 2, 3)}) == 1


def test_tensors_travel_together_where_all_but_their_rows_is_the_same() -> None:
    x = np.zeros((1, 2), np.float32)
    alike = [
        requests.infer("m", {"x": x}),
        requests.infer("m", {"x": np.ones((3, 2), np.float32)}),
        requests.infer("m", {"x": x}, timeout_s=3),
    ]
    assert len({call.joint for call in alike}) == 1
    assert [call.rows for call in alike] == [1, 3, 1]
    named = [requests.infer("m", {"x": x}, outputs=["y"]), requests.infer("m", {"x": x}, outputs=("y",))]
    assert len({call.joint for call in named}) == 1
    others = [
        requests.infer("n", {"x": x}),
        requests.infer("m", {"z": x}),
        requests.infer("m", {"x": x.astype(np.int32)}),
        requests.infer("m", {"x": x.astype(">f4")}),
        requests.infer("m", {"x": np.zeros((1, 3), np.float32)}),
        requests.infer("m", {"x": x, "z": x}),
        requests.infer("m", {"x": x}, version="1"),
        requests.infer("m", {"x": x}, priority=1),
    ]
    assert len({call.joint for call in [*alike, *named, *others]}) == 2 + len(others)
    for settings in ({"request_id": "r"}, {"parameters": {"a": 1}}, {"metadata": {"k": "v"}}):
        assert _infer("m", {"x": x}, **settings).joint is None
    for inputs in ({"x": np.zeros((0, 2))}, {"x": np.float32(1)}, {"x": x, "z": np.zeros((2, 2))}, {}):
        assert _infer("m", inputs).joint is None


def test_a_request_sends_the_arrays_that_it_was_given() -> None:
    inputs = {"x": np.full((1, 2), 7, np.uint8)}
    call = requests.infer("m", inputs)
    inputs["x"] = np.zeros((5, 5), np.uint8)
    sent: Any = call.request
    assert list(sent.raw_input_contents) == [bytes([7, 7])]


@pytest.mark.parametrize("accepted", ["int4", "", ["float32"], 1])
def test_variants_that_there_are_not_are_refused_before_they_are_sent(accepted: Any) -> None:
    for build in (
        lambda: requests.infer("m", {"x": np.zeros((1, 2))}, accept_variant=accepted),
        lambda: requests.classify("m", [b"x"], accept_variant=accepted),
    ):
        with pytest.raises(InvalidRequestError, match="accept_variant is"):
            build()


def test_a_result_in_parts_names_the_variant_that_answered_one_of_them() -> None:
    own = InferResult("m", "1", {"y": np.zeros((2, 1))})
    other = InferResult("m-int8", "3", {"y": np.ones((1, 1))}, variant="int8")
    joined = replies.join_infer([own, other], rows=3)
    assert (joined.model, joined.version, joined.variant) == ("m-int8", "3", "int8")
    assert [share.variant for share in replies.split_infer(joined, [1, 2])] == ["int8", "int8"]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.sampled_from([(), (3,), (2, 0)]), st.integers(0, 2))
def test_shares_of_a_joined_result_are_its_rows_in_order(counts: list[int], each: tuple[int, ...], names: int) -> None:
    rows = sum(counts)
    outputs = {str(name): np.arange(rows * math.prod(each)).reshape(rows, *each) + name for name in range(names)}
    shares = replies.split_infer(InferResult("m", "1", outputs), counts)
    assert [share.outputs.keys() for share in shares] == [outputs.keys()] * len(counts)
    stops = np.cumsum(counts)
    for share, count, stop in zip(shares, counts, stops, strict=True):
        assert (share.model, share.version, share.request_id) == ("m", "1", "")
        for name, output in outputs.items():
            np.testing.assert_array_equal(share.outputs[name], output[stop - count : stop])
