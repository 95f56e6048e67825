"""The check that a degraded answer is as good as its gates promise: a variant that answers wrong fails it."""

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.degrade import ask_each, judge_variant
from bench.labelled_pictures import Answered, Pictures
from bench.same_pictures import SamePictures
from inferry_proto.open_inference_pb2 import ModelInferResponse
from testkit import onnx_models
from testkit.servers import running_server

LIMIT = 0.1  # points, as gates and servers have it
CLASSES, ROWS, COUNT = 10, 8, 2_003
LABELS = (np.arange(COUNT) * 7 % CLASSES).astype(np.uint8)
PICTURES = Pictures(np.zeros((COUNT, 1, 1, 1), np.uint8), LABELS, ROWS)
HARDEST = set(range(0, COUNT, 40))  # what the model itself does not know

Answers = Callable[[int], NDArray[np.uint8]]  # of a request, the class of each of its pictures


def right_ones(request: int) -> NDArray[np.uint8]:
    """The model's own answers: right but for the hardest pictures."""
    mine = range(request * ROWS, min((request + 1) * ROWS, COUNT))
    return np.array([(LABELS[one] + (one in HARDEST)) % CLASSES for one in mine], np.uint8)


def one_picture_wrong(request: int) -> NDArray[np.uint8]:
    """As int8 may be: one picture of the whole set is another class."""
    answer = right_ones(request)
    answer[1] = (answer[1] + (request == 3)) % CLASSES
    return answer


def rows_of_another(request: int) -> NDArray[np.uint8]:
    """The answers are right, but of another request."""
    return np.resize(right_ones((request + 1) % 250), len(right_ones(request)))


def neighbours_exchanged(request: int) -> NDArray[np.uint8]:
    """Two pictures of each request have each other's answer."""
    answer = right_ones(request)
    answer[[0, 1]] = answer[[1, 0]]
    return answer


def one_class_lost(request: int) -> NDArray[np.uint8]:
    """Of ten classes one is never named."""
    answer = right_ones(request)
    return np.where(answer == 4, 9, answer).astype(np.uint8)


def first_request_wrong(request: int) -> NDArray[np.uint8]:
    """One request of 251 has no picture right."""
    answer = right_ones(request)
    return (answer + 1) % CLASSES if request == 0 else answer


def answered(request: int, classes: NDArray[np.uint8], *, variant: bool) -> Answered:
    response = ModelInferResponse(raw_output_contents=[np.eye(CLASSES, dtype=np.float32)[classes].tobytes()])
    if variant:
        response.parameters["variant"].string_param = "int8"
    return Answered(request, 0.001, response.SerializeToString())


def judged(variant: Answers) -> SamePictures:
    same = SamePictures(PICTURES.rows)
    for request in range(len(PICTURES.rows)):
        same.add_of_model(request, PICTURES.right(answered(request, right_ones(request), variant=False))[0])
        right, by_variant = PICTURES.right(answered(request, variant(request), variant=True))
        assert by_variant
        same.add_of_variant(request, right)
    return same


@pytest.mark.parametrize("variant", [right_ones, one_picture_wrong])
def test_a_variant_that_loses_what_its_gates_allow_passes(variant: Answers) -> None:
    compared = judged(variant).compare()
    assert compared.pictures == COUNT
    assert compared.is_within(LIMIT)
    assert compared.model == pytest.approx(1 - len(HARDEST) / COUNT)


@pytest.mark.parametrize("variant", [rows_of_another, neighbours_exchanged, one_class_lost, first_request_wrong])
def test_a_variant_that_answers_wrong_fails(variant: Answers) -> None:
    assert not judged(variant).compare().is_within(LIMIT)


def test_a_wrong_answer_among_right_ones_to_the_same_request_counts() -> None:
    same = judged(right_ones)
    for request in range(len(PICTURES.rows)):
        same.add_of_variant(request, 0)
    assert same.compare().points_lost > 40


def test_what_was_not_answered_both_ways_is_not_compared() -> None:
    same = SamePictures([8, 8, 3])
    same.add_of_model(0, 8)
    assert same.without_variant() == [0, 1, 2]
    with pytest.raises(ValueError, match="the model answered all but 2 of 3 requests"):
        same.compare()
    for request in (1, 2):
        same.add_of_model(request, 3)
    same.add_of_variant(1, 3)
    with pytest.raises(ValueError, match="the variant answered all but 2 of 3 requests"):
        same.compare()


@given(st.lists(st.integers(0, ROWS), min_size=1), st.integers(1, 4))
def test_a_variant_that_answers_as_the_model_loses_nothing_however_often_it_answered(
    rights: list[int], times: int
) -> None:
    same = SamePictures([ROWS] * len(rights))
    for request, right in enumerate(rights):
        same.add_of_model(request, right)
        for _ in range(times):
            same.add_of_variant(request, right)
    assert same.compare().is_within(0.0)


def test_the_set_is_asked_of_a_server_both_ways_and_wrong_answers_under_load_fail(tmp_path: Path) -> None:
    """What the variant answered under load counts, although it answers rightly by its own name."""
    onnx_models.save_brightness(tmp_path)
    onnx_models.save_brightness_variant(tmp_path)
    bright = np.arange(21) % 2
    images = np.broadcast_to((bright * 255).astype(np.uint8)[:, None, None, None], (21, 4, 4, 1))
    pictures = Pictures(images, bright.astype(np.uint8), ROWS)
    names = {"model": "brightness", "variant": "brightness-int8"}
    with running_server(tmp_path) as server, grpc.insecure_channel(str(server.grpc_address)) as channel:
        honest = judge_variant(channel, pictures, [(1, 8)], **names)
        wrong = judge_variant(channel, pictures, [(1, 8), (2, 0)], **names)
        with pytest.raises(RuntimeError, match=r"1 requests were refused .*INVALID_ARGUMENT"):
            ask_each(channel, [*pictures.requests("brightness", accept_variant=False)[:1], b"no request"], [0, 1])
    assert (honest.pictures, honest.model, honest.variant) == (21, 1.0, 1.0)
    assert honest.is_within(LIMIT)
    assert wrong.points_lost == pytest.approx(100 * 5 / 21)
