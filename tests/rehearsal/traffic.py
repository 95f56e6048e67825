"""Clients that look at every answer, with no retries of their own unless told."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable

import grpc
import numpy as np
from numpy.typing import NDArray

from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from testkit.callers import Callers, own_channel

DEADLINE_S = 5.0
CLIENTS = 8
_PAUSE_S = 0.02  # between requests of a client: traffic, not a load test


class Traffic(Callers):
    """Requests of some threads to one address; counts by phase. Any thread may read the counts.

    Args:
        address: of the gateway.
        retries: a gRPC service config that has some; without it nothing is sent twice.
    """

    def __init__(self, address: str, *, retries: str | None = None) -> None:
        super().__init__(CLIENTS)
        self._address, self._retries = address, retries
        self._lock = threading.Lock()
        self.phase = ""
        self.answered: Counter[str] = Counter()
        self.versions: dict[str, Counter[str]] = {}
        self.failures: dict[str, list[str]] = {}

    def call(self, number: int) -> None:
        """Ask for the double of one vector after the other, each of its own values."""
        with own_channel(self._address, retries=self._retries) as channel:
            for count in itertools.count():
                if not self.goes_on(_PAUSE_S):
                    return
                phase = self.phase
                values = np.array([number, count, 0.5], np.float32)
                version, failure = ask(channel, values)
                self._count(phase, version, failure)

    def _count(self, phase: str, version: str, failure: str) -> None:
        with self._lock:
            if not failure:
                self.answered[phase] += 1
                self.versions.setdefault(phase, Counter())[version] += 1
            else:
                self.failures.setdefault(phase, []).append(failure)


def play_phase(traffic: Traffic, name: str, act: Callable[[], object]) -> None:
    """Act while requests are counted under this name, and print what became of them."""
    traffic.phase = name
    started = time.monotonic()
    act()
    answered, failures = traffic.answered[name], traffic.failures.get(name, [])
    print(f"{name:45} {answered:6} answered, {len(failures)} failed, {time.monotonic() - started:5.1f} s", flush=True)


def ask(channel: grpc.Channel, values: NDArray[np.float32]) -> tuple[str, str]:
    """Ask the doubler once; returns the version that answered, and what is wrong with the answer, empty for nothing."""
    infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer"
    )
    try:
        reply = ModelInferResponse.FromString(infer(infer_request(values), timeout=DEADLINE_S))
    except grpc.RpcError as error:
        return "", f"{error.code().name}: {error.details()}"
    answer = np.frombuffer(reply.raw_output_contents[0], np.float32)
    return reply.model_version, "" if np.array_equal(answer, 2 * values) else "WRONG"


def infer_request(values: NDArray[np.float32]) -> bytes:
    """For one row of the doubler."""
    message = ModelInferRequest(model_name="doubler", raw_input_contents=[values.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    return bytes(message.SerializeToString())
