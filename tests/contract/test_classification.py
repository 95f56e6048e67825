"""Pictures classified by a real server, one by one, several at once and in streams."""

import hashlib
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from inferry_proto import classifier_pb2 as pb
from inferry_proto.preprocessing import UInt8Array
from inferry_proto.services import IMAGE_CLASSIFIER
from testkit import onnx_models
from testkit.pictures import encode_picture, grey
from testkit.rpc import call
from testkit.servers import running_server


def raw(pixels: UInt8Array) -> pb.Image:
    height, width, channels = pixels.shape
    return pb.Image(pixels=pb.Pixels(height=height, width=width, channels=channels, data=pixels.tobytes()))


GREY_PNG = encode_picture(grey(1))
NO_PIXELS = pb.Pixels(height=2, width=2, channels=1)


def test_pictures_and_pixels_of_any_size_are_classified_in_order(channel: grpc.Channel) -> None:
    images = [
        pb.Image(encoded=encode_picture(grey(0, 9))),
        raw(np.full((5, 7, 3), 255, np.uint8)),
        pb.Image(encoded=encode_picture(grey(51))),
    ]
    response = call(channel, "Classify", pb.ClassifyRequest(model_name="brightness", id="9", images=images, top_k=5))
    found = [[(c.index, c.label, round(c.probability, 4)) for c in r.classifications] for r in response.results]
    assert found == [
        [(0, "dark", 1), (1, "bright", 0)],
        [(1, "bright", 1), (0, "dark", 0)],
        [(0, "dark", 0.8), (1, "bright", 0.2)],
    ]
    assert (response.id, response.model_name, response.model_version) == ("9", "brightness", "1")
    assert response.timing.decode_us > 0


def test_only_labels_that_are_probable_enough_are_given(channel: grpc.Channel) -> None:
    images = [pb.Image(encoded=encode_picture(grey(level))) for level in (51, 128)]
    request = pb.ClassifyRequest(model_name="brightness", images=images, top_k=2, min_probability=0.6)
    found = [[c.label for c in result.classifications] for result in call(channel, "Classify", request).results]
    assert found == [["dark"], []]


def test_one_label_is_given_where_no_number_was_asked_for(channel: grpc.Channel) -> None:
    request = pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=encode_picture(grey(255)))])
    (result,) = call(channel, "Classify", request).results
    assert [c.label for c in result.classifications] == ["bright"]


def test_a_stream_of_pictures_gets_its_replies_in_order_with_errors_in_band(channel: grpc.Channel) -> None:
    requests = [
        pb.ClassifyRequest(model_name="brightness", id=str(i), images=[pb.Image(encoded=b"x" if i == 3 else GREY_PNG)])
        for i in range(20)
    ]
    method = IMAGE_CLASSIFIER["ClassifyStream"]
    stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method.path)
    answers = [
        pb.ClassifyStreamResponse.FromString(message)
        for message in stub((request.SerializeToString() for request in requests), timeout=20)
    ]
    assert [answer.response.id for answer in answers] == [str(i) for i in range(20)]
    for i, answer in enumerate(answers):
        if i == 3:
            assert answer.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            assert "image 0: not a picture" in answer.error_message
        else:
            assert (answer.error_code, answer.error_message) == (0, "")
            assert answer.response.results[0].classifications[0].label == "dark"


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (pb.ClassifyRequest(model_name="nothing"), "NOT_FOUND", "model 'nothing'"),
        (pb.ClassifyRequest(model_name="doubler"), "FAILED_PRECONDITION", "does not classify pictures"),
        (pb.ClassifyRequest(model_name="brightness"), "INVALID_ARGUMENT", "0 images; .* takes 1 to 256"),
        (
            pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=GREY_PNG), pb.Image(encoded=b"x")]),
            "INVALID_ARGUMENT",
            "image 1: not a picture",
        ),
        (
            pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=GREY_PNG)], min_probability=1.5),
            "INVALID_ARGUMENT",
            "min_probability is 1.5; expected 0 to 1",
        ),
        (
            pb.ClassifyRequest(model_name="brightness", images=[pb.Image()]),
            "INVALID_ARGUMENT",
            "image 0: not a picture.*0 bytes came",
        ),
        (
            pb.ClassifyRequest(model_name="brightness", images=[pb.Image(pixels=NO_PIXELS)]),
            "INVALID_ARGUMENT",
            "image 0: 0 bytes came for 2x2x1 pixels; expected 4",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_classified_is_named_with_the_right_status(
    channel: grpc.Channel, request_: pb.ClassifyRequest, status: str, message: str
) -> None:
    with pytest.raises(grpc.RpcError, match=message) as error:
        call(channel, "Classify", request_)
    assert error.value.code().name == status


def test_a_model_describes_how_pictures_become_its_input(channel: grpc.Channel) -> None:
    response = call(channel, "DescribeModel", pb.DescribeModelRequest(model_name="brightness"))
    assert list(response.labels) == ["dark", "bright"]
    assert (response.preprocessing.height, response.max_batch_size, response.model_version) == (4, 256, "1")
    assert [t.name for t in response.signature.inputs] == ["images"]
    assert not call(channel, "DescribeModel", pb.DescribeModelRequest(model_name="doubler")).HasField("preprocessing")


def test_a_model_tells_the_digest_of_the_bytes_that_answer_whatever_lies_there_later(
    tmp_path: Path, transport: str
) -> None:
    file = onnx_models.save_brightness(tmp_path) / "model.onnx"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with (
        running_server(tmp_path, transport=transport) as running,
        grpc.insecure_channel(str(running.grpc_address)) as channel,
    ):
        file.write_bytes(b"another model")
        described = call(channel, "DescribeModel", pb.DescribeModelRequest(model_name="brightness"))
    assert described.model_sha256 == digest


def test_classes_of_an_output_have_its_own_labels_or_none(tmp_path: Path, transport: str) -> None:
    pair = ["left", "right"]
    onnx_models.save_two_inputs(tmp_path)
    (tmp_path / "joiner" / "names.txt").write_text("less\nmore\n")
    (tmp_path / "joiner" / "config.pbtxt").write_text('output { name: "difference" label_filename: "names.txt" }')
    with running_server(tmp_path, transport=transport) as running:
        client = triton.InferenceServerClient(str(running.grpc_address))
        inputs = [triton.InferInput(name, [1, 2], "FP32") for name in pair]
        for tensor, values in zip(inputs, ([[1, 5]], [[1, 1]]), strict=True):
            tensor.set_data_from_numpy(np.array(values, np.float32))
        outputs = [triton.InferRequestedOutput(name, class_count=2) for name in ("total", "difference")]
        answer = client.infer("joiner", inputs, outputs=outputs)
        client.close()
    assert answer.as_numpy("total").tolist() == [[b"6.000000:1", b"2.000000:0"]]
    assert answer.as_numpy("difference").tolist() == [[b"4.000000:1:more", b"0.000000:0:less"]]
