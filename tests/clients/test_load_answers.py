"""A reply is an answer only if it is the model's, with every output and a row for each sent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.load.answers import Expectation, WrongAnswerError, expect_labels
from inferry_client.results import TensorSpec
from inferry_proto import open_inference_pb2
from inferry_proto.services import OPEN_INFERENCE

OUTPUTS = (TensorSpec("y", "FP32", (-1, 3)), TensorSpec("z", "FP32", (-1, -1)))


@pytest.mark.parametrize(
    ("name", "model", "shapes", "named"),
    [
        ("other model", "n", {"y": (2, 3), "z": (2, 1)}, "from model 'n'; expected 'm'"),
        ("missing", "m", {"y": (2, 3)}, "output 'z' is missing"),
        ("too few rows", "m", {"y": (1, 3), "z": (2, 1)}, r"output 'y' has shape \[1, 3\]"),
        ("other axis", "m", {"y": (2, 4), "z": (2, 1)}, r"output 'y' has shape \[2, 4\]"),
        ("more axes", "m", {"y": (2, 3), "z": (2, 1, 1)}, "output 'z' has shape"),
    ],
)
def test_an_answer_needs_every_output_with_a_row_for_each_sent(
    name: str, model: str, shapes: dict[str, tuple[int, ...]], named: str
) -> None:
    expectation = Expectation(OPEN_INFERENCE["ModelInfer"].path, "m", 2, OUTPUTS)
    reply = open_inference_pb2.ModelInferResponse(model_name=model)
    for output, shape in shapes.items():
        reply.outputs.add(name=output, datatype="FP32", shape=shape)
        reply.raw_output_contents.append(np.zeros(shape, np.float32).tobytes())
    with pytest.raises(WrongAnswerError, match=named):
        expectation.read(reply.SerializeToString())


@given(st.binary(max_size=40))
def test_bytes_that_are_no_answer_never_pass(reply: bytes) -> None:
    for expectation in (expect_labels("mnist", rows=1), Expectation(OPEN_INFERENCE["ModelInfer"].path, "mnist")):
        with pytest.raises(WrongAnswerError):
            expectation.read(reply)
