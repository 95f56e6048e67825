"""The fake server that users test their programs with."""

import numpy as np
import pytest

from inferry_client import Client, TensorSpec, errors
from inferry_client.testing import FakeModel, fake_server


def test_a_fake_model_answers_by_its_functions() -> None:
    model = FakeModel(
        labels=("even", "odd"),
        classify=lambda picture: [0.9, 0.1] if len(picture) % 2 == 0 else [0.2, 0.8],
        infer=lambda inputs: {"sum": inputs["x"].sum(axis=1), "x": inputs["x"]},
        inputs=(TensorSpec("x", "FP32", (-1, 2)),),
        version="7",
    )
    with fake_server({"m": model}) as server, Client(server.address) as client:
        result = client.classify("m", [b"ab", b"abc", np.zeros((4, 4), np.uint8)], top_k=2, request_id="r")
        assert [image[0].label for image in result.images] == ["even", "odd", "even"]
        assert (result.version, result.request_id) == ("7", "r")
        outputs = client.infer("m", {"x": np.ones((3, 2), np.float32)}, outputs=["sum"]).outputs
        assert list(outputs) == ["sum"]
        np.testing.assert_array_equal(outputs["sum"], [2, 2, 2])
        assert client.describe("m").labels == ("even", "odd")
        assert client.model_metadata("m").versions == ("7",)
        assert [status.ready for status in client.models()] == [True]
        with pytest.raises(errors.ModelNotFoundError):
            client.infer("n", {})
        with pytest.raises(errors.UnsupportedError):
            client.statistics()


def test_refusals_come_as_often_as_asked_for_and_large_requests_are_cut() -> None:
    model = FakeModel(
        labels=("a",), classify=lambda _: [1.0], inputs=(TensorSpec("x", "UINT8", (-1, 2)),), max_batch_size=4
    )
    with fake_server({"m": model}) as server, Client(server.address) as client:
        server.refuse("Classify", "RESOURCE_EXHAUSTED", times=2, pushback_ms=1)
        assert client.classify("m", b"x").images[0][0].label == "a"
        assert len(server.requests("Classify")) == 3
        assert len(client.classify("m", [b"x"] * 10).images) == 10
        assert [len(request.images) for request in server.requests("Classify")[3:]] == [10, 4, 4, 2]
