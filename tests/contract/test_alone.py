"""A model that is said to take rows, and does not answer row by row: nobody gets INTERNAL, nobody another's rows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton

from inferry_client import Client, InferryError
from inferry_server.app import Server
from testkit import onnx_models
from testkit.metrics_page import read_metrics, total
from testkit.servers import running_server

NOTHING = 208  # the level that the finder drops; it knows three above it
PICTURES = [np.full((rows, 2, 2, 1), level, np.uint8) for rows in (1, 2, 3) for level in range(208, 212)]
MIXED = np.array([208, 209, 208, 211], np.uint8).repeat(4).reshape(4, 2, 2, 1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    onnx_models.save_finder(tmp_path)
    (tmp_path / "finder" / "config.pbtxt").write_text("max_batch_size: 8\n", encoding="utf-8")
    with running_server(tmp_path, max_queue_delay_us=2000, inline_batch_ms=0) as running:
        yield running


def reason(client: triton.InferenceServerClient) -> str:
    [model] = client.get_model_repository_index().models
    assert model.state == "READY"
    return str(model.reason)


def test_every_request_gets_what_the_model_answers_it_alone_and_the_index_says_why(
    server: Server, tmp_path: Path
) -> None:
    session = onnxruntime.InferenceSession(tmp_path / "finder" / "1" / "model.onnx")

    def asks(pictures: np.ndarray) -> bool:
        tensor = triton.InferInput("pictures", list(pictures.shape), "UINT8")
        tensor.set_data_from_numpy(pictures)
        with triton.InferenceServerClient(str(server.grpc_address)) as client:
            answer = client.infer("finder", [tensor]).as_numpy("scores")
        return np.array_equal(answer, session.run(None, {"pictures": pictures})[0])

    with triton.InferenceServerClient(str(server.grpc_address)) as client:
        assert reason(client) == ""
        assert asks(MIXED)  # the first batch that shows it
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(asks, [*PICTURES, MIXED] * 3))
        assert "its requests run alone" in reason(client)
        assert "expected a row for each" in reason(client)
        [tensor] = [triton.InferInput("pictures", [1, 2, 2, 1], "UINT8")]
        tensor.set_data_from_numpy(PICTURES[0])
        classes = [triton.InferRequestedOutput("scores", class_count=2)]
        assert client.infer("finder", [tensor], outputs=classes).as_numpy("scores").shape == (0, 2)
    assert total(read_metrics(server), "inferry_batching_ended_total") == 1


def test_a_picture_without_scores_is_an_error_of_its_request(server: Server) -> None:
    with Client(str(server.grpc_address)) as client:
        [[best]] = client.classify("finder", [PICTURES[2][0]]).images
        assert best.index == 1
        with pytest.raises(InferryError, match="1 rows of scores came for 2 pictures"):
            client.classify("finder", [PICTURES[2][0], PICTURES[0][0]])
