"""Whatever a model is, its callers get what ONNX Runtime answers each of them alone, however many ask at once."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from testkit.random_graphs import RandomGraph, random_graph
from testkit.servers import running_server

CALLERS = 12  # of one model at the same time
TOLERANCE = 2e-4  # of the largest answer: sums of other lengths round otherwise

Arrays = dict[str, NDArray[Any]]


class Model:
    """A random graph, what its callers ask, and what they must be told."""

    def __init__(self, graph: RandomGraph, seed: int) -> None:
        random = np.random.default_rng(seed)
        session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.graph = graph
        self.outputs = [output.name for output in session.get_outputs()]
        self.asked: list[tuple[Arrays, Sequence[NDArray[Any]]]] = []
        # Callers of one shape share a batch, so the free lengths are the same for all: each draws them anew.
        for rows in random.integers(1, 4, CALLERS):
            inputs = graph.inputs(int(rows), np.random.default_rng(seed))
            inputs = {name: _other_values(array, random) for name, array in inputs.items()}
            self.asked.append((inputs, session.run(self.outputs, inputs)))

    def check(self, client: triton.InferenceServerClient, caller: int, failures: list[str]) -> None:
        """Ask as one caller, and compare."""
        inputs, expected = self.asked[caller]
        tensors = []
        for name, array in inputs.items():
            tensors.append(triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
            tensors[-1].set_data_from_numpy(array)
        try:
            answer = client.infer(self.graph.name, tensors, client_timeout=60)
        except triton.InferenceServerException as error:
            failures.append(f"{self.graph.name} {self.graph.text}: {error}")
            return
        for name, wanted in zip(self.outputs, expected, strict=True):
            found = answer.as_numpy(name)
            scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-3)) if wanted.dtype.kind == "f" else 0.0
            if not np.allclose(found, wanted, rtol=0, atol=TOLERANCE * scale, equal_nan=True):
                failures.append(
                    f"{self.graph.name} {self.graph.text}: output {name} {found.tolist()}, not {wanted.tolist()}"
                )


def _other_values(array: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    if array.dtype.kind == "f":
        return (random.normal(size=array.shape) * 2).astype(array.dtype)
    return random.integers(0, 9, array.shape).astype(array.dtype)


def wrong_answers(repository: Path, seeds: range) -> tuple[list[str], int]:
    """What callers were told wrongly, and how many models were batched."""
    models = [Model(graph, seed) for seed in seeds if _runs(graph := random_graph(seed))]
    for model in models:
        model.graph.save(repository)
    failures: list[str] = []
    together = threading.Barrier(CALLERS)
    # A delay lets those who ask at the same time share a batch, however slow the machine is.
    with running_server(repository, max_queue_delay_us=2000, inline_batch_ms=0) as server:

        def call(caller: int) -> None:
            with triton.InferenceServerClient(str(server.grpc_address)) as client:
                for model in models:
                    together.wait(60)
                    model.check(client, caller, failures)

        with ThreadPoolExecutor(CALLERS) as pool:
            for done in [pool.submit(call, caller) for caller in range(CALLERS)]:
                done.result()
        batched = sum(served.max_request_rows > 0 for served in server.registry.served())
    return failures, batched


def _runs(graph: RandomGraph) -> bool:
    try:
        Model(graph, 0)
    except Exception:  # noqa: BLE001 - ONNX Runtime refuses some graphs, in many ways
        return False
    return True


@pytest.mark.parametrize("first", [0])
def test_every_reply_of_a_random_model_is_the_one_that_a_lone_request_gets(tmp_path: Path, first: int) -> None:
    failures, batched = wrong_answers(tmp_path, range(first, first + 60))
    assert failures == []
    assert batched >= 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 200))
def test_every_reply_of_many_random_models_is_the_one_that_a_lone_request_gets(tmp_path: Path, first: int) -> None:
    failures, batched = wrong_answers(tmp_path, range(first, first + 200))
    assert failures == []
    assert batched >= 20
