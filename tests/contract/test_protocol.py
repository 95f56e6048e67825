"""The Open Inference Protocol as tritonclient speaks it, against a real server."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx import TensorProto
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from inferry_server.app import Server
from testkit import onnx_models
from testkit.servers import running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("models")
    onnx_models.save_doubler(repository, version=1)
    onnx_models.save_doubler(repository, version=2)
    onnx_models.save_scalar_adder(repository)
    onnx_models.save_text_echo(repository)
    onnx_models.save_two_inputs(repository)
    onnx_models.save_picky(repository)
    onnx_models.save_brightness(repository)
    onnx_models.save_distinct(repository)
    onnx_models.save_half_echo(repository, name="fp16", element_type=TensorProto.FLOAT16)
    onnx_models.save_half_echo(repository, name="bf16", element_type=TensorProto.BFLOAT16)
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    (repository / "empty").mkdir()
    with running_server(repository, transport=transport) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(str(server.grpc_address)) as opened:
        yield opened


def infer(
    client: triton.InferenceServerClient, model: str, inputs: dict[str, NDArray[Any]], **options: Any
) -> dict[str, NDArray[Any]]:
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    result = client.infer(model, tensors, **options)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def status_of(error: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return str(error.value.status()).removeprefix("StatusCode.")


def test_the_server_says_who_it_is_and_what_works(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name == "inferry"
    assert {"model_configuration", "statistics", "classification"} <= set(metadata.extensions)
    assert not {"system_shared_memory", "cuda_shared_memory", "sequence", "trace"} & set(metadata.extensions)


def test_metadata_has_the_batch_dimension_and_config_has_not(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("brightness")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("images", "UINT8", [-1, 4, 4, 1])]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [("probabilities", "FP32", [-1, 2])]
    assert list(metadata.versions) == ["1"]
    config = client.get_model_config("brightness").config
    assert (config.max_batch_size, list(config.input[0].dims), config.platform) == (256, [4, 4, 1], "onnxruntime_onnx")
    assert client.get_model_config("adder").config.max_batch_size == 0


def test_the_index_lists_every_version_with_its_state_and_reason(client: triton.InferenceServerClient) -> None:
    index = {(m.name, m.version): (m.state, m.reason) for m in client.get_model_repository_index().models}
    assert index["doubler", "2"] == ("READY", "")
    assert index["doubler", "1"][0] == "UNAVAILABLE"
    assert "not served: not among the versions" in index["doubler", "1"][1]
    assert index["broken", "1"][0] == "UNAVAILABLE"
    assert "ONNX Runtime cannot load it" in index["broken", "1"][1]
    assert "holds no version" in index["empty", ""][1]


def test_replies_are_right_for_every_kind_of_model(client: triton.InferenceServerClient) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(infer(client, "doubler", {"x": x})["y"], 2 * x)
    scalars = {"a": np.array(2, np.int64), "b": np.array(40, np.int64)}
    assert infer(client, "adder", scalars)["sum"] == 42
    texts = np.array([[b"a", "ü€".encode()]], dtype=object)
    np.testing.assert_array_equal(infer(client, "echo", {"in": texts})["out"], texts)
    pair = {"left": x[:, :2], "right": x[:, 1:]}
    answer = infer(client, "joiner", pair)
    np.testing.assert_array_equal(answer["total"], x[:, :2] + x[:, 1:])
    np.testing.assert_array_equal(answer["difference"], x[:, :2] - x[:, 1:])


@pytest.mark.parametrize(("model", "datatype"), [("fp16", "FP16"), ("bf16", "BF16")])
def test_numbers_of_two_bytes_travel_as_they_are(
    client: triton.InferenceServerClient, model: str, datatype: str
) -> None:
    def ask(row: int) -> bool:
        bits = np.array([[row, 0x3C00]], np.uint16)
        tensor = triton.InferInput("in", [1, 2], datatype)
        tensor._raw_content = bits.tobytes()  # one side of the comparison must know nothing of BF16
        response = client.infer(model, [tensor]).get_response()
        return bool(response.outputs[0].datatype == datatype and response.raw_output_contents == [bits.tobytes()])

    with ThreadPoolExecutor(16) as pool:  # so that some of them share a batch
        assert all(pool.map(ask, range(100)))


def test_a_model_whose_free_axes_are_no_rows_runs_one_request_at_a_time(client: triton.InferenceServerClient) -> None:
    assert client.get_model_config("distinct").config.max_batch_size == 0
    for numbers in ([3, 1, 3], [7], []):
        answer = infer(client, "distinct", {"in": np.array(numbers, np.int64)})["out"]
        assert answer.tolist() == sorted(set(numbers))


def test_only_the_requested_outputs_come_back(client: triton.InferenceServerClient) -> None:
    pair = {name: np.ones((1, 2), np.float32) for name in ("left", "right")}
    answer = infer(client, "joiner", pair, outputs=[triton.InferRequestedOutput("difference")])
    assert list(answer) == ["difference"]


def test_the_reply_echoes_the_id_and_names_its_version(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    response = client.infer("doubler", [tensor], request_id="request-1").get_response()
    assert (response.id, response.model_name, response.model_version) == ("request-1", "doubler", "2")


def test_a_reply_is_the_same_alone_or_in_company(client: triton.InferenceServerClient) -> None:
    inputs = [np.full((rows, 3), rows, np.float32) for rows in (1, 2, 3, 5, 8, 13)] * 20

    def ask(x: NDArray[Any]) -> bool:
        return bool((infer(client, "doubler", {"x": x})["y"] == 2 * x).all())

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, inputs))


@pytest.mark.parametrize(
    ("model", "version", "status", "message"),
    [
        ("nothing", "", "NOT_FOUND", "model 'nothing'"),
        ("", "", "NOT_FOUND", "model ''"),
        ("doubler", "9", "NOT_FOUND", "version '9' of model 'doubler'"),
        ("doubler", "9" * 5000, "NOT_FOUND", "of model 'doubler'"),
        (
            "doubler",
            "1",
            "UNAVAILABLE",
            "version '1' of model 'doubler' is UNAVAILABLE: not served: not among the versions",
        ),
        ("broken", "", "UNAVAILABLE", "ONNX Runtime cannot load it"),
        ("empty", "", "UNAVAILABLE", "holds no version"),
        (
            "doubler",
            "abc",
            "INVALID_ARGUMENT",
            "'abc' of model 'doubler' is neither .* nor one of its labels: none",
        ),
        ("doubler", "-3", "INVALID_ARGUMENT", "'-3'"),
        ("doubler", "1x", "INVALID_ARGUMENT", "'1x'"),
        ("nothing", "1x", "INVALID_ARGUMENT", "'1x'"),
    ],
)
def test_a_model_that_cannot_reply_is_named_with_the_right_status(
    client: triton.InferenceServerClient, model: str, version: str, status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as error:
        infer(client, model, {"x": np.zeros((1, 3), np.float32)}, model_version=version)
    assert status_of(error) == status
    for question in (client.get_model_metadata, client.get_model_config):
        with pytest.raises(InferenceServerException, match=message) as error:
            question(model, version)
        assert status_of(error) == status


def test_model_ready_of_what_is_not_there_is_false_and_no_error(client: triton.InferenceServerClient) -> None:
    ready = [client.is_model_ready(m, v) for m, v in (("doubler", ""), ("doubler", "2"), ("echo", "1"))]
    assert ready == [True, True, True]
    absent = (("doubler", "1"), ("doubler", "x"), ("nothing", ""), ("broken", ""), ("empty", ""))
    assert not any(client.is_model_ready(m, v) for m, v in absent)


def test_what_is_wrong_with_a_request_is_an_invalid_argument(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"has shape \[1, 4\]; expected \[-1, 3\]") as error:
        infer(client, "doubler", {"x": np.zeros((1, 4), np.float32)})
    assert status_of(error) == "INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="257 rows; model 'doubler' takes up to 256") as error:
        infer(client, "doubler", {"x": np.zeros((257, 3), np.float32)})
    assert status_of(error) == "INVALID_ARGUMENT"


def test_a_request_the_model_fails_on_harms_no_neighbour(client: triton.InferenceServerClient) -> None:
    def ask(index: int) -> float | str:
        try:
            return float(infer(client, "picky", {"index": np.array([index], np.int64)})["y"][0])
        except InferenceServerException as error:
            return str(error.status())

    indices = [0, 1, 99, 2, 3] * 20
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, indices))
    assert answers == [10.0 * i if i < 4 else "StatusCode.INTERNAL" for i in indices]


def test_a_deadline_that_cannot_be_met_is_exceeded(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as error:
        infer(client, "doubler", {"x": np.zeros((1, 3), np.float32)}, timeout=1)
    assert status_of(error) == "DEADLINE_EXCEEDED"


def test_a_stream_replies_in_order_and_outlives_a_bad_request(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    try:
        for i in range(50):
            tensor = triton.InferInput("x", [1, 3], "FP32")
            tensor.set_data_from_numpy(np.full((1, 3), i, np.float32))
            client.async_stream_infer("nothing" if i == 20 else "doubler", [tensor], request_id=str(i))
        received = [answers.get(timeout=20) for _ in range(50)]
    finally:
        client.stop_stream()
    for i, (result, error) in enumerate(received):
        if i == 20:
            assert "model 'nothing' is not in the repository" in str(error)
        else:
            assert result.get_response().id == str(i)
            np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 3), 2 * i))


def read_stream(client: triton.InferenceServerClient, models: list[str], **options: Any) -> list[tuple[Any, Any]]:
    """What a stream's callback was told, until an error or the final response to the last request."""
    answers: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
    received = []
    client.start_stream(lambda result, error: answers.put((result, error)), **options)
    try:
        for i, model in enumerate(models):
            tensor = triton.InferInput("x", [1, 3], "FP32")
            tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
            client.async_stream_infer(model, [tensor], request_id=str(i), enable_empty_final_response=True)
        while True:
            received.append(answers.get(timeout=20))
            result, error = received[-1]
            if error is not None or result.get_response().id == str(len(models) - 1):
                return received
    finally:
        client.stop_stream()


def test_a_stream_marks_the_final_response_of_each_request(client: triton.InferenceServerClient) -> None:
    received = read_stream(client, ["doubler"] * 3)
    parameters = [result.get_response().parameters for result, _ in received]
    assert [one["triton_final_response"].bool_param for one in parameters] == [True] * 3


def test_a_client_that_asks_for_statuses_has_its_stream_ended_by_one(client: triton.InferenceServerClient) -> None:
    received = read_stream(client, ["doubler", "nothing", "doubler"], headers={"triton_grpc_error": "true"})
    assert [error is None for _, error in received] == [True, False]
    assert received[1][1].status() == "StatusCode.NOT_FOUND"


def test_a_request_larger_than_a_batch_gets_one_whole_reply(client: triton.InferenceServerClient) -> None:
    x = np.arange(3 * 200, dtype=np.float32).reshape(200, 3)
    np.testing.assert_array_equal(infer(client, "doubler", {"x": x})["y"], 2 * x)


def test_the_classification_extension_names_the_most_probable_classes(client: triton.InferenceServerClient) -> None:
    images = np.array([51, 255], np.uint8)[:, None, None, None] * np.ones((2, 4, 4, 1), np.uint8)
    wanted = [triton.InferRequestedOutput("probabilities", class_count=5)]
    found = infer(client, "brightness", {"images": images}, outputs=wanted)["probabilities"]
    assert found.tolist() == [
        [b"0.800000:0:dark", b"0.200000:1:bright"],
        [b"1.000000:1:bright", b"0.000000:0:dark"],
    ]


def test_statistics_count_requests_rows_and_batches(client: triton.InferenceServerClient) -> None:
    def read() -> Any:
        return client.get_inference_statistics("joiner").model_stats[0]

    before = read()
    pair = {name: np.ones((3, 2), np.float32) for name in ("left", "right")}
    for _ in range(4):
        infer(client, "joiner", pair)
    after = read()
    assert (after.name, after.version) == ("joiner", "1")
    assert after.inference_count - before.inference_count == 12
    assert after.execution_count - before.execution_count == 4
    stages = after.inference_stats
    durations = (stages.success, stages.queue, stages.compute_input, stages.compute_infer, stages.compute_output)
    assert {duration.count for duration in durations} == {before.inference_stats.success.count + 4}
    assert stages.success.ns >= stages.compute_infer.ns > 0
    assert {b.batch_size: b.compute_infer.count for b in after.batch_stats}[3] == 4
    assert after.last_inference > 1_700_000_000_000
    everything = client.get_inference_statistics()
    assert {"joiner", "doubler"} <= {m.name for m in everything.model_stats}


@pytest.mark.parametrize(("model", "version"), [("nothing", ""), ("doubler", "9"), ("broken", "")])
def test_statistics_of_what_is_not_served_are_an_invalid_argument(
    client: triton.InferenceServerClient, model: str, version: str
) -> None:
    with pytest.raises(InferenceServerException, match=f"model '{model}'") as error:
        client.get_inference_statistics(model, version)
    assert status_of(error) == "INVALID_ARGUMENT"


def test_the_asyncio_client_gets_the_same_replies(server: Server) -> None:
    import asyncio

    import tritonclient.grpc.aio as triton_aio

    async def ask() -> NDArray[Any]:
        async with triton_aio.InferenceServerClient(str(server.grpc_address)) as aio_client:
            tensor = triton_aio.InferInput("x", [1, 3], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 3), np.float32))
            answer: NDArray[Any] = (await aio_client.infer("doubler", [tensor])).as_numpy("y")
            return answer

    np.testing.assert_array_equal(asyncio.run(ask()), np.full((1, 3), 2, np.float32))
