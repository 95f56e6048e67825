"""Messages with more fields than may be parsed are refused unparsed; whatever else comes, parsing tells."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.classifier_pb2 import ClassifyRequest
from inferry_server.errors import TooManyFieldsError
from inferry_server.wire.fields import FieldLimit

PATH = "/a/Method"
DATA = frozenset({pb.InferTensorContents.DESCRIPTOR.full_name})
MOST = 100


def is_refused(message: bytes, of: type[Message] = pb.ModelInferRequest, most: int = MOST) -> bool:
    try:
        FieldLimit(most, {PATH: of.DESCRIPTOR}, data_types=DATA).check(PATH, message)
    except TooManyFieldsError:
        return True
    return False


def deep(**fields: Any) -> bytes:
    """One input with these fields."""
    return pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(**fields)]).SerializeToString()


CONTENTS = pb.InferTensorContents


@pytest.mark.parametrize(
    "message",
    [
        pb.ModelInferRequest(raw_input_contents=[b""] * 101).SerializeToString(),
        pb.ModelInferRequest(inputs=[{}] * 101).SerializeToString(),
        pb.ModelInferRequest(
            parameters={str(i): pb.InferParameter(int64_param=i) for i in range(40)}
        ).SerializeToString(),
        deep(parameters={str(i): {} for i in range(50)}),
        deep(contents=CONTENTS(bytes_contents=[b""] * 101)),
        deep(shape=[1] * 101),
        b"\x7b" * 101,  # groups of a field that there is not
        b"\x78\x00" * 101,  # numbers of a field that there is not
        pb.ModelInferRequest(inputs=[{}] * 101).SerializeToString() + b"\x3a\x7f",  # damaged at the end
        deep(parameters={str(i): {} for i in range(50)}) + b"\xff" * 20,
    ],
)
def test_more_fields_than_may_be_are_found_wherever_they_are(message: bytes) -> None:
    assert is_refused(message)


@pytest.mark.parametrize(
    "message",
    [
        pb.ModelInferRequest(raw_input_contents=[bytes(10_000)] * 90).SerializeToString(),
        deep(contents=CONTENTS(fp32_contents=[1.0] * 10_000, int64_contents=[1] * 10_000)),
        deep(name="n" * 10_000, shape=[1 << 62] * 8),
        pb.ModelInferRequest(model_name="inputs" * 100).SerializeToString(),
    ],
)
def test_data_is_no_fields(message: bytes) -> None:
    assert not is_refused(message)


def test_pictures_are_counted_by_the_piece() -> None:
    assert is_refused(ClassifyRequest(images=[{}] * 101).SerializeToString(), ClassifyRequest)
    assert not is_refused(ClassifyRequest(images=[{"encoded": bytes(1000)}] * 30).SerializeToString(), ClassifyRequest)


def test_a_method_that_is_not_known_has_its_outer_fields_counted() -> None:
    limit = FieldLimit(MOST, {}, data_types=DATA)
    with pytest.raises(TooManyFieldsError, match="max_message_fields"):
        limit.check("/another/Method", b"\x0a\x00" * 101)


def fields_of(message: Message) -> int:
    """As protobuf found them: a field, or an element of a repeated one, each."""
    count = 0
    for descriptor, value in message.ListFields():
        entries = value.values() if hasattr(value, "values") else value
        repeated = not isinstance(entries, (str, bytes, int, float, Message))
        for entry in entries if repeated else [entries]:
            is_data = message.DESCRIPTOR.full_name in DATA and descriptor.name != "bytes_contents"
            count += (fields_of(entry) if isinstance(entry, Message) else 0) + (0 if is_data else 1)
    return count


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"\x3a\x00", b"\x2a\x00", b"\x22\x00", b"\x2a\x02\x1a\x00",
       b"\x7b", b"\x7c", b"\x2a\x04\x1a\x02\x01\x01", b"\x78\x80\x01", b"\x3d\0\0\0\0"])).map(b"".join))  # fmt: skip
def test_what_passes_has_no_more_fields_when_it_is_parsed(message: bytes) -> None:
    if not is_refused(message, most=5):
        try:
            parsed = pb.ModelInferRequest.FromString(message)
        except DecodeError:
            return
        assert fields_of(parsed) <= 5
