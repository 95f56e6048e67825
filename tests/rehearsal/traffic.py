"""Clients that look at every answer, with no retries of their own unless told."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
from numpy.typing import NDArray

from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse

DEADLINE_S = 5.0
CLIENTS = 8
_PAUSE_S = 0.02  # between requests of a client: traffic, not a load test


class Traffic:
    """Requests of some threads to one address; counts by phase. Any thread may read the counts.

    Args:
        address: of the gateway.
        retries: a gRPC service config that has some; without it nothing is sent twice.
    """

    def __init__(self, address: str, *, retries: str | None = None) -> None:
        self._address, self._retries = address, retries
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.phase = ""
        self.answered: Counter[str] = Counter()
        self.versions: dict[str, Counter[str]] = {}
        self.failures: dict[str, list[str]] = {}

    @contextmanager
    def flowing(self) -> Iterator["Traffic"]:
        """Requests, from now until leaving."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int) -> None:
        options: list[tuple[str, str | int]] = [("grpc.use_local_subchannel_pool", 1)]
        options.append(("grpc.service_config", self._retries) if self._retries else ("grpc.enable_retries", 0))
        with grpc.insecure_channel(self._address, options=options) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer"
            )
            for count in itertools.count():
                if self._stop.wait(_PAUSE_S):
                    return
                phase = self.phase
                values = np.array([number, count, 0.5], np.float32)
                try:
                    reply = ModelInferResponse.FromString(infer(infer_request(values), timeout=DEADLINE_S))
                    answer = np.frombuffer(reply.raw_output_contents[0], np.float32)
                    self._count(phase, reply.model_version, None if np.array_equal(answer, 2 * values) else "WRONG")
                except grpc.RpcError as error:
                    self._count(phase, "", f"{error.code().name}: {error.details()}")

    def _count(self, phase: str, version: str, failure: str | None) -> None:
        with self._lock:
            if failure is None:
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


def infer_request(values: NDArray[np.float32]) -> bytes:
    """For one row of the doubler."""
    message = ModelInferRequest(model_name="doubler", raw_input_contents=[values.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    return bytes(message.SerializeToString())
