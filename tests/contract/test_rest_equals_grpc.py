"""Generated requests over REST and over gRPC: the same answers to the byte, the same refusals to the word."""

import http.client
import json
import random
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from inferry_server.app import Server
from testkit import onnx_models
from testkit.rpc import begin
from testkit.servers import running_server
from testkit.waiting import SOON_S

pytest.importorskip("uvicorn")

HTTP_CODES = {"OK": 200, "INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "DEADLINE_EXCEEDED": 504}
MODELS: dict[str, tuple[str, str, tuple[int, ...]]] = {  # input, datatype, the shape of a row
    "doubler": ("x", "FP32", (3,)),
    "brightness": ("images", "UINT8", (4, 4, 1)),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    onnx_models.save_doubler(root)
    onnx_models.save_brightness(root)
    with running_server(root) as running:
        yield running


class Asked:
    """One request, as both protocols carry it."""

    def __init__(self, chance: random.Random) -> None:
        self.model = chance.choice(list(MODELS))
        self.name, self.datatype, row = MODELS[self.model]
        self.shape = [chance.randint(1, 5), *row]
        self.version = chance.choice(["", "", "", "1", "7"])
        self.timeout_us = chance.choice([0, 0, 0, 0, 60_000_000, 1])
        self.id = chance.choice(["", "é", "x" * 40])
        self.outputs = chance.choice([[], [], ["nothing"]])
        data = np.frombuffer(chance.randbytes(int(np.prod(self.shape))), np.uint8).astype(
            DATATYPES[self.datatype].dtype
        )
        self.data: NDArray[Any] = data
        spoil = chance.random()
        if spoil < 0.1:
            self.shape[chance.randrange(len(self.shape))] += chance.choice([-1, 1])
        elif spoil < 0.15:
            self.datatype = chance.choice(["FP32", "FP64", "UINT8", "INT64", "NONSENSE"])
        elif spoil < 0.2:
            self.name = chance.choice(["", "y", "images"])
        elif spoil < 0.23:
            self.model = "nothing"

    def over_grpc(self, channel: grpc.Channel) -> tuple[int, Any]:
        request = ModelInferRequest(
            model_name=self.model, model_version=self.version, id=self.id, raw_input_contents=[self.data.tobytes()]
        )
        request.inputs.add(name=self.name, datatype=self.datatype, shape=self.shape)
        for name in self.outputs:
            request.outputs.add(name=name)
        if self.timeout_us:
            request.parameters["timeout"].int64_param = self.timeout_us
        future = begin(channel, "ModelInfer", request)
        if future.exception(SOON_S) is not None:
            return HTTP_CODES[future.code().name], future.details()
        answer = ModelInferResponse.FromString(future.result())
        outputs = zip(answer.outputs, answer.raw_output_contents, strict=True)
        told = {output.name: (list(output.shape), output.datatype, raw) for output, raw in outputs}
        return 200, (answer.model_name, answer.model_version, answer.id, told)

    def over_rest(self, connection: http.client.HTTPConnection) -> tuple[int, Any]:
        parameters: dict[str, Any] = {"binary_data_output": True}
        parameters |= {"timeout": self.timeout_us} if self.timeout_us else {}
        size = {"binary_data_size": self.data.nbytes}
        tensor = {"name": self.name, "shape": self.shape, "datatype": self.datatype, "parameters": size}
        request: dict[str, Any] = {"id": self.id, "inputs": [tensor], "parameters": parameters}
        request |= {"outputs": [{"name": name} for name in self.outputs]} if self.outputs else {}
        text = json.dumps(request).encode()
        version = f"/versions/{self.version}" if self.version else ""
        connection.request(
            "POST", f"/v2/models/{self.model}{version}/infer", text + self.data.tobytes(),
            {"Inference-Header-Content-Length": str(len(text))},
        )  # fmt: skip
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return answer.status, json.loads(body)["error"]
        length = int(answer.headers["Inference-Header-Content-Length"])
        said, rest = json.loads(body[:length]), body[length:]
        told: dict[str, Any] = {}
        for output in said["outputs"]:
            nbytes = output["parameters"]["binary_data_size"]
            told[output["name"]] = (output["shape"], output["datatype"], rest[:nbytes])
            rest = rest[nbytes:]
        assert rest == b""
        return 200, (said["model_name"], said["model_version"], said.get("id", ""), told)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_generated_requests_get_the_same_replies_and_refusals(server: Server, count: int) -> None:
    chance, codes = random.Random(count), []
    assert server.http_address is not None
    connection = http.client.HTTPConnection(server.http_address.host, server.http_address.port, timeout=SOON_S)
    with grpc.insecure_channel(str(server.grpc_address)) as channel:
        for _ in range(count):
            asked = Asked(chance)
            (code, over_grpc), (http_code, over_rest) = asked.over_grpc(channel), asked.over_rest(connection)
            assert http_code == code, (vars(asked), over_grpc, over_rest)
            if code != 504:  # it names the moment
                assert over_rest == over_grpc, vars(asked)
            codes.append(code)
    connection.close()
    assert {200, 400, 404, 504} <= set(codes)
    assert codes.count(200) > count / 5
