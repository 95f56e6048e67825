"""A replica goes away under load, and a client that balances over the others does not notice."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import grpc
import numpy as np
import pytest

from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from testkit import onnx_models
from testkit.servers import FRONT_ENDS
from testkit.transports import ALL_TRANSPORTS

# What the documentation gives to clients: balance, and ask each replica whether it is ready.
SERVICE_CONFIG = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
THREADS = 4


@pytest.fixture(scope="module", params=ALL_TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Over every transport, and through front ends."""
    return cast("str", request.param)


@contextmanager
def replica(
    repository: Path, transport: str, *, drain_delay_s: float = 1
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "inferry_server", "--repository", str(repository), "--provider", "cpu"]
    command += ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    command += ["--drain-delay-s", str(drain_delay_s)]
    command += ["--front-ends", "2"] if transport == FRONT_ENDS else ["--transport", transport]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split("gRPC ")[1].split(",")[0]
        finally:
            process.kill()


def request() -> bytes:
    message = ModelInferRequest(model_name="doubler", raw_input_contents=[np.ones(3, np.float32).tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    return message.SerializeToString()


def test_sigterm_under_load_beside_a_second_replica_fails_no_request(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    errors: list[str] = []
    answered = [0] * THREADS
    stop = threading.Event()
    with replica(tmp_path, transport) as (leaving, first), replica(tmp_path, transport) as (_, second):
        options = [("grpc.service_config", json.dumps(SERVICE_CONFIG))]
        with grpc.insecure_channel(f"ipv4:{first},{second}", options=options) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
            infer(request(), timeout=20, wait_for_ready=True)

            def ask(thread: int) -> None:
                while not stop.is_set():
                    try:
                        infer(request(), timeout=20)
                        answered[thread] += 1
                    except grpc.RpcError as error:
                        errors.append(str(error))

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(THREADS)]
            for thread in threads:
                thread.start()
            leaving.send_signal(signal.SIGTERM)
            assert leaving.wait(60) == 0
            before = sum(answered)
            while sum(answered) < before + 200 and not errors:
                stop.wait(0.01)
            stop.set()
            for thread in threads:
                thread.join()
    assert errors == []
    assert min(answered) > 0


def test_sigterm_under_load_cancels_no_call_that_has_arrived(tmp_path: Path, transport: str) -> None:
    """Callers of the only server hear that it is gone, which they can repeat elsewhere; nothing else."""
    onnx_models.save_doubler(tmp_path)
    errors: list[grpc.StatusCode] = []
    busy = threading.Barrier(17, timeout=60)

    def ask(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
            infer(request(), timeout=20)
            busy.wait()
            try:
                while True:
                    infer(request(), timeout=20)
            except grpc.RpcError as error:
                errors.append(error.code())

    with replica(tmp_path, transport, drain_delay_s=0) as (leaving, address):
        threads = [threading.Thread(target=ask, args=(address,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        busy.wait()
        leaving.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert leaving.wait(60) == 0
    assert errors == [grpc.StatusCode.UNAVAILABLE] * 16
