"""The REST half of the protocol: Triton's HTTP client unchanged, and the same answers as over gRPC."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.version_labels import write_version_labels
from inferry_server.app import Server
from testkit import onnx_models
from testkit.http_client import HttpAnswer, ask_http
from testkit.metrics_page import read_metrics
from testkit.pictures import encode_picture, grey
from testkit.rpc import call
from testkit.servers import running_server

pytest.importorskip("uvicorn")
triton = pytest.importorskip("tritonclient.http")
shared_memory = pytest.importorskip("tritonclient.utils.shared_memory")

TYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
    "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16,
}  # fmt: skip


def save_echo(repository: Path, datatype: str) -> None:
    """`y = x`, of this datatype, `[N, 2]`."""
    value = [helper.make_tensor_value_info(name, TYPES[datatype], ["N", 2]) for name in ("x", "y")]
    path = repository / f"echo_{datatype.lower()}" / "1" / "model.onnx"
    onnx_models.save_model(path, [helper.make_node("Identity", ["x"], ["y"])], value[:1], value[1:])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    for datatype in TYPES:
        save_echo(root, datatype)
    for save in (onnx_models.save_doubler, onnx_models.save_brightness, onnx_models.save_two_inputs):
        save(root)
    onnx_models.save_doubler(root, version=2)
    write_version_labels(root / "doubler", {"stable": 1, "canary": 2})
    with running_server(
        root, model_control="explicit", response_compression="gzip", system_shared_memory=True,
        remote_logging_control=True,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.grpc_address)) as opened:
        yield opened


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(str(server.http_address)) as opened:
        yield opened


def infer_json(server: Server, request: Any, model: str = "doubler") -> HttpAnswer:
    return ask_http(server, f"/v2/models/{model}/infer", json.dumps(request).encode())


def tensor(name: str, data: Any, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def test_tritons_client_asks_everything_it_can(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("doubler")
    assert client.is_model_ready("doubler", "2")
    assert client.is_model_ready("doubler", "stable")
    assert not client.is_model_ready("doubler", "9")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["name"] == "inferry"
    metadata = client.get_model_metadata("doubler")
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert client.get_model_metadata("doubler", "stable")["versions"] == ["1"]
    config = client.get_model_config("doubler", "2")
    assert (config["platform"], config["input"][0]["data_type"]) == ("onnxruntime_onnx", "TYPE_FP32")
    assert config["input"][0]["dims"] == [3]
    index = {(one["name"], one["version"], one["state"]) for one in client.get_model_repository_index()}
    assert {("doubler", "1", "READY"), ("doubler", "2", "READY")} <= index
    with pytest.raises(triton.InferenceServerException, match="model 'nothing' is not in the repository"):
        client.get_model_metadata("nothing")


def test_statistics_are_those_of_grpc(client: Any) -> None:
    x = triton.InferInput("x", [1, 3], "FP32")
    x.set_data_from_numpy(np.zeros((1, 3), np.float32))
    before = client.get_inference_statistics("doubler", "1")["model_stats"][0]["inference_count"]
    client.infer("doubler", [x], model_version="1")
    (after,) = client.get_inference_statistics("doubler", "1")["model_stats"]
    assert after["inference_count"] == before + 1
    assert after["inference_stats"]["success"]["count"] >= 1
    assert len(client.get_inference_statistics()["model_stats"]) > 3
    assert [one["version"] for one in client.get_inference_statistics("doubler", "canary")["model_stats"]] == ["2"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("outputs", [None, [("y", True)], [("y", False)]])
def test_tritons_client_infers_with_tensors_as_json_and_as_bytes(
    client: Any, binary_in: bool, outputs: list[tuple[str, bool]] | None
) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    given_input = triton.InferInput("x", [2, 3], "FP32")
    given_input.set_data_from_numpy(x, binary_data=binary_in)
    wanted = outputs and [triton.InferRequestedOutput(name, binary_data=binary) for name, binary in outputs]
    for compression in (None, "gzip", "deflate"):
        found = client.infer(
            "doubler", [given_input], outputs=wanted, request_id="seven", model_version="canary", priority=2,
            request_compression_algorithm=compression, response_compression_algorithm="gzip", timeout=20_000_000,
        )  # fmt: skip
        np.testing.assert_array_equal(found.as_numpy("y"), 2 * x)
        assert (found.get_response()["id"], found.get_response()["model_version"]) == ("seven", "2")
    assert client.async_infer("doubler", [given_input]).get_result().as_numpy("y").shape == (2, 3)


def test_tritons_client_classifies(client: Any) -> None:
    images = triton.InferInput("images", [1, 4, 4, 1], "UINT8")
    images.set_data_from_numpy(np.full((1, 4, 4, 1), 51, np.uint8))
    wanted = [triton.InferRequestedOutput("probabilities", class_count=1)]
    found = client.infer("brightness", [images], outputs=wanted)
    assert found.as_numpy("probabilities").tolist() == [[b"0.800000:0:dark"]]


def test_tritons_client_loads_and_unloads(client: Any) -> None:
    client.unload_model("joiner")
    assert not client.is_model_ready("joiner")
    client.load_model("joiner")
    assert client.is_model_ready("joiner")
    with pytest.raises(triton.InferenceServerException, match="'config' are not offered"):
        client.load_model("joiner", config="{}")


def test_tritons_client_changes_what_is_logged_and_asks_what_is_traced(client: Any) -> None:
    before = client.get_log_settings()
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.update_log_settings(before) == before
    assert client.get_trace_settings("doubler")["trace_level"] == ["OFF"]
    with pytest.raises(triton.InferenceServerException, match="'trace_level' is 'OFF'"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    assert client.update_trace_settings(settings={"trace_rate": None})["trace_level"] == ["OFF"]


def test_tritons_client_passes_tensors_in_shared_memory(client: Any) -> None:
    x = np.arange(3, dtype=np.float32).reshape(1, 3)
    region = shared_memory.create_shared_memory_region("rest", "/inferry_rest_test", 2 * x.nbytes)
    try:
        shared_memory.set_shared_memory_region(region, [x])
        client.register_system_shared_memory("rest", "/inferry_rest_test", 2 * x.nbytes)
        assert [one["name"] for one in client.get_system_shared_memory_status()] == ["rest"]
        given_input = triton.InferInput("x", [1, 3], "FP32")
        given_input.set_shared_memory("rest", x.nbytes)
        wanted = triton.InferRequestedOutput("y")
        wanted.set_shared_memory("rest", x.nbytes, offset=x.nbytes)
        found = client.infer("doubler", [given_input], outputs=[wanted])
        assert found.get_output("y")["parameters"]["shared_memory_region"] == "rest"
        np.testing.assert_array_equal(
            shared_memory.get_contents_as_numpy(region, np.float32, [1, 3], offset=x.nbytes), 2 * x
        )
        client.unregister_system_shared_memory("rest")
        client.unregister_cuda_shared_memory()
        assert client.get_system_shared_memory_status() == client.get_cuda_shared_memory_status() == []
    finally:
        shared_memory.destroy_shared_memory_region(region)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    """What JSON has for an element of a datatype."""
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    if datatype in ("FP16", "BF16", "FP32", "FP64"):
        return st.floats(width={"FP16": 16, "BF16": 16, "FP32": 32, "FP64": 64}[datatype])  # type: ignore[arg-type]
    limits = np.iinfo(datatype.lower())
    return st.integers(int(limits.min), int(limits.max))


@given(data=st.data(), datatype=st.sampled_from(sorted(TYPES)), rows=st.integers(1, 4), nested=st.booleans())
def test_json_and_bytes_over_http_and_grpc_have_the_same_replies(
    server: Server, channel: grpc.Channel, data: st.DataObject, datatype: str, rows: int, nested: bool
) -> None:
    values = data.draw(st.lists(elements(datatype), min_size=2 * rows, max_size=2 * rows))
    body = [values[2 * i : 2 * i + 2] for i in range(rows)] if nested else values
    model = f"echo_{datatype.lower()}"
    answer = infer_json(server, {"id": "é", "inputs": [tensor("x", body, [rows, 2], datatype)]}, model)
    assert answer.code == 200, answer.body
    (output,) = answer.json["outputs"]
    assert (output["shape"], output["datatype"], answer.json["id"]) == ([rows, 2], datatype, "é")
    # What JSON says of the answer, sent back as bytes over gRPC, is echoed as the bytes of the same numbers.
    again = infer_json(server, {"inputs": [tensor("x", output["data"], [rows, 2], datatype)],
                                "parameters": {"binary_data_output": True}}, model)  # fmt: skip
    raw = again.body[int(again.headers["inference-header-content-length"]) :]
    request = ModelInferRequest(model_name=model, raw_input_contents=[raw])
    request.inputs.add(name="x", datatype=datatype, shape=[rows, 2])
    over_grpc = call(channel, "ModelInfer", request).raw_output_contents[0]
    if datatype == "BF16":  # NaNs may have other bits
        raw, over_grpc = (np.frombuffer(one, "<u2") & 0xFF80 for one in (raw, over_grpc))  # type: ignore[assignment]
    if datatype in ("FP32", "FP64", "FP16"):
        dtype = DATATYPES[datatype].dtype
        np.testing.assert_array_equal(np.frombuffer(over_grpc, dtype), np.array(values).astype(dtype))
    assert bytes(raw) == bytes(over_grpc)
    if datatype not in ("FP16", "BF16", "FP32", "FP64"):
        assert output["data"] == values


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{", 400, "the request is no JSON"),
        (b"[]", 400, "the request must be a JSON object, not a list"),
        (b"{}", 400, "input 'x' is missing, 0 came; model 'doubler' takes 'x'"),
        (b'{"inputs": 1}', 400, "inputs must be a list of objects, not a number"),
        (b'{"inputs": [{}, "x"]}', 400, "inputs must be a list of objects, and a text is in it"),
        (b'{"inputs": [{"shape": [1]}]}', 400, "an input has no name"),
        (b'{"id": 7}', 400, "id must be a text, not a number"),
        (b'{"id": "\\ud800"}', 400, "id is no text"),
        (b"[" * 100_000, 400, "the request is no JSON"),
        (tensor("x", [1, 2], [1, 3]), 400, "input 'x' has 8 bytes; shape [1, 3] of FP32 takes 12"),
        (tensor("x", [1, [2], 3], [1, 3]), 400, "data is nested irregularly or too deeply"),
        (tensor("x", [1, 2, "3"], [1, 3]), 400, "data must be numbers, as FP32 has them, not a text"),
        (tensor("x", [1, 2, True], [1, 3]), 400, "data must be numbers"),
        (tensor("x", [1, 2, None], [1, 3]), 400, "data must be numbers, as FP32 has them, not null"),
        (tensor("x", [1, 2, 1e300], [1, 3]), 400, "1e+300 is no FP32"),
        (tensor("x", "123", [1, 3]), 400, "data must be a list, not a text"),
        (tensor("x", [1, 2, 3], [1, 3], "FP64"), 400, "has datatype 'FP64'; expected FP32"),
        (tensor("x", [1, 2, 3], [1, 3], "FLOAT"), 400, "has datatype 'FLOAT'; expected FP32"),
        ({**tensor("x", [], [1, 3]), "parameters": {"binary_data_size": 4}}, 400, "data and binary_data_size"),
        ({**tensor("x", [1, 2, 3], [1, 3]), "parameters": {"a": {}}}, 400, "'a' must be a boolean, a number or"),
        (
            {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}},
            400,
            "0 bytes are",
        ),
        ({"name": "x", "shape": [1, 2.5], "datatype": "FP32"}, 400, "whole numbers of 64 bits at most, not [1, 2.5]"),
        ({"name": "x", "shape": [1, 1 << 64], "datatype": "FP32"}, 400, "whole numbers of 64 bits at most"),
        (b'{"parameters": {"a": 1%b}, "b": NaN}' % (b"0" * 30), 400, "'a' must be a number of 64 bits at most, not 1"),
        (
            {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 1 << 64}},
            400,
            "must be a whole number of bytes, not 1.8446744073709552e+19",
        ),
        ({"name": "x", "shape": [1, 3], "datatype": "FP32"}, 400, "input 'x' has no data"),
    ],
)
def test_what_is_wrong_is_told_with_what_was_expected(server: Server, body: Any, code: int, message: str) -> None:
    sent = body if isinstance(body, bytes) else json.dumps({"inputs": [body]}).encode()
    answer = ask_http(server, "/v2/models/doubler/infer", sent)
    assert (answer.code, list(answer.json)) == (code, ["error"])
    assert message in answer.json["error"]


def test_bytes_behind_the_json_belong_to_inputs(server: Server) -> None:
    text = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32",
                                   "parameters": {"binary_data_size": 12}}]}).encode()  # fmt: skip
    path, length = "/v2/models/doubler/infer", {"inference_header_content_length": str(len(text))}
    data = np.ones(3, np.float32).tobytes()
    for around in ("{}", " \t{} \t"):
        spaced = {name: around.format(value) for name, value in length.items()}
        assert ask_http(server, path, text + data, **spaced).json["outputs"][0]["data"] == [2, 2, 2]
    assert (
        "4 bytes behind the JSON belong to no input"
        in ask_http(server, path, text + data + b"more", **length).json["error"]
    )
    assert "11 bytes are left behind the JSON" in ask_http(server, path, text + data[:-1], **length).json["error"]
    for wrong in ("-1", "x", str(len(text) + 13), "1" * 5000, ""):
        answer = ask_http(server, path, text + data, inference_header_content_length=wrong)
        assert (answer.code, "Inference-Header-Content-Length is" in answer.json["error"]) == (400, True)


@given(st.binary(max_size=200), st.integers(0, 40) | st.none(), st.sampled_from(["infer", "classify"]))
def test_noise_is_refused_and_nothing_breaks(server: Server, noise: bytes, length: int | None, verb: str) -> None:
    headers = {} if length is None else {"inference_header_content_length": str(length)}
    assert 400 <= ask_http(server, f"/v2/models/brightness/{verb}", noise, **headers).code < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["id", "parameters", "inputs", "outputs", "name", "shape", "datatype", "data", "binary_data"])


@given(
    spoiled=st.dictionaries(FIELDS, JSON, max_size=4),
    where=st.sampled_from(["request", "input", "output", "parameters"]),
    path=st.sampled_from(["/v2/models/doubler/infer", "/v2/repository/models/doubler/load", "/v2/logging",
                          "/v2/trace/setting", "/v2/systemsharedmemory/region/r/register", "/v2/repository/index"]),
)  # fmt: skip
def test_requests_of_any_shape_get_a_reply_or_a_refusal(
    server: Server, spoiled: dict[str, Any], where: str, path: str
) -> None:
    input_, output, parameters = tensor("x", [1, 2, 3], [1, 3]), {"name": "y"}, {"binary_data_output": False}
    parts: dict[str, dict[str, Any]] = {"input": input_, "output": output, "parameters": parameters}
    request = {"inputs": [input_], "outputs": [output], "parameters": parameters}
    parts.get(where, request).update(spoiled)
    answer = ask_http(server, path, json.dumps(request).encode())
    assert answer.code == 200 or 400 <= answer.code < 500, answer.body


def test_a_picture_as_the_body_gets_labels(server: Server) -> None:
    path = "/v2/models/brightness/classify"
    answer = ask_http(server, path + "?top_k=2&id=seven", encode_picture(grey(255)), content_type="image/png")
    assert (answer.json["model_version"], answer.json["id"]) == ("1", "seven")
    labels = [(one["label"], one["probability"]) for one in answer.json["results"][0]["classifications"]]
    assert labels == [("bright", 1.0), ("dark", 0.0)]
    sure = ask_http(
        server,
        path + "?top_k=2&min_probability=0.5",
        encode_picture(grey(0)),
        content_type="application/x-www-form-urlencoded",
    )
    assert [one["label"] for one in sure.json["results"][0]["classifications"]] == ["dark"]
    assert ask_http(server, "/v2/models/brightness/versions/1/classify", encode_picture(grey(0))).code == 200
    for wrong, message in (
        ((path, b""), "the body is empty"),
        ((path, base64.b64encode(encode_picture(grey(0)))), "not a picture"),
        ((path + "?top_k=-1", encode_picture(grey(0))), "'top_k' is '-1'; expected a number from 0"),
        ((path + "?min_probability=nan", encode_picture(grey(0))), "'min_probability' is 'nan'"),
    ):
        refused = ask_http(server, *wrong)
        assert (refused.code, message in refused.json["error"]) == (400, True)
    form = ask_http(server, path, encode_picture(grey(0)), content_type="multipart/form-data; boundary=x")
    assert "the body itself, as curl --data-binary" in form.json["error"]


def test_requests_are_counted_as_those_of_grpc(server: Server) -> None:
    labels = 'code="NOT_FOUND",method="/inference.GRPCInferenceService/ModelInfer",reason="model_not_found"'

    def outcomes() -> float:
        return read_metrics(server).get(f"inferry_requests_outcome_total{{{labels}}}", 0.0)

    before = outcomes()
    assert infer_json(server, {}, model="nothing").code == 404
    assert outcomes() == before + 1
