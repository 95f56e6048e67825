"""Callers of several models at once, large requests, late ones, cancelled ones and bad ones: no answer is wrong."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from inferry_proto.open_inference_pb2 import ModelInferRequest
from testkit import onnx_models
from testkit.rpc import begin, first_output, infer_request
from testkit.servers import running_server

CALLERS, REQUESTS = 8, 150  # requests of each caller
REFUSALS = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
TABLE = 4  # indices that `picky` has; another one fails the batch that it is in

Expected = NDArray[Any] | grpc.StatusCode


def random_request(random: np.random.Generator) -> tuple[ModelInferRequest, Expected]:
    """A request to one of the models, and its answer, or the status that it must get."""
    rows = int(random.choice([1, 1, 1, 2, 7, 40]))
    match random.integers(5):
        case 0:
            x = random.normal(size=(rows, 3)).astype(np.float32)
            return infer_request("doubler", x=x), 2 * x
        case 1:
            left, right = random.normal(size=(2, rows, 2)).astype(np.float32)
            return infer_request("joiner", left=left, right=right), left + right
        case 2:
            index = random.integers(0, TABLE, rows)
            return infer_request("picky", index=index), (10 * index).astype(np.float32)
        case 3:
            index = np.full(1, TABLE)
            return infer_request("picky", index=index), grpc.StatusCode.INTERNAL
        case _:
            request = infer_request("doubler", x=np.zeros((rows, 3), np.float32))
            request.raw_input_contents[0] = request.raw_input_contents[0][:-1]
            return request, grpc.StatusCode.INVALID_ARGUMENT


def call_mixed(address: str, seed: int) -> tuple[int, int]:
    """Ask a few at a time, and compare; how many rows were compared, and how many were wrong."""
    random = np.random.default_rng(seed)
    compared = wrong = 0
    with grpc.insecure_channel(address) as channel:
        for _ in range(REQUESTS // 5):
            asked = []
            for _ in range(5):
                request, expected = random_request(random)
                request.parameters["priority"].uint64_param = int(random.integers(0, 3))
                if random.random() < 0.1:
                    request.parameters["timeout"].int64_param = int(random.integers(1, 2000))
                asked.append((begin(channel, "ModelInfer", request), expected))
            if random.random() < 0.2:
                asked.pop()[0].cancel()
            for future, expected in asked:
                code = future.code()
                if code is grpc.StatusCode.OK and not isinstance(expected, grpc.StatusCode):
                    compared += len(expected)  # rows
                    wrong += not np.array_equal(first_output(future), expected.ravel())
                else:
                    assert code in REFUSALS or code is expected
    return compared, wrong


def test_no_reply_is_wrong_while_others_are_large_late_cancelled_or_bad(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    onnx_models.save_two_inputs(tmp_path)
    onnx_models.save_picky(tmp_path)
    with running_server(tmp_path, transport=transport, max_batch_size=8) as server:
        with ThreadPoolExecutor(CALLERS) as pool:
            results = list(pool.map(lambda seed: call_mixed(str(server.grpc_address), seed), range(CALLERS)))
        assert all(version.max_request_rows for version in server.registry.served())
    assert sum(wrong for _, wrong in results) == 0
    assert sum(compared for compared, _ in results) > CALLERS * REQUESTS
