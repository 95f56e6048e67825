from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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
    keys = {requests.classify("m", [b"x"], accept_variant=one).joint().key for one in (None, True, "int8")}  # type: ignore[misc]
    assert len(keys) == 3


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
    assert replies.part_of_infer(joined, 0, 1).variant == "int8"
