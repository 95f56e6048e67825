"""What LoadGen drives: each sample is answered once, with the label of its own picture."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.loadgen_target import Target
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse

CLASSES = 7
IMAGES = np.arange(CLASSES, dtype=np.uint8).repeat(4).reshape(CLASSES, 2, 2, 1)


@dataclass
class Server:
    """A channel whose server answers when it is told to: a picture's class is the value of its pixels."""

    asked: deque[tuple[ModelInferRequest, "Future[bytes]"]] = field(default_factory=deque)
    most: int = 0

    def unary_unary(self, _path: str) -> "Server":
        return self

    def future(self, request: bytes, timeout: float) -> "Future[bytes]":
        assert timeout > 0
        future: Future[bytes] = Future()
        self.asked.append((ModelInferRequest.FromString(request), future))
        self.most = max(self.most, len(self.asked))
        return future

    def answer(self, *, rows: int | None = None) -> None:
        """Answer the oldest request, or so many of its rows."""
        request, future = self.asked.popleft()
        pixels = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tuple(request.inputs[0].shape))
        scores = np.eye(CLASSES, dtype=np.float32)[pixels[:, 0, 0, 0]][:rows]
        reply = ModelInferResponse(raw_output_contents=[scores.tobytes()])
        reply.outputs.add(name="scores", datatype="FP32", shape=scores.shape)
        future.set_result(reply.SerializeToString())


@dataclass
class LoadGen:
    """Remembers which samples were completed."""

    completed: list[int] = field(default_factory=list)

    def QuerySampleResponse(self, number: int, _data: int, _size: int) -> int:  # noqa: N802 - LoadGen's name
        return number

    def QuerySamplesComplete(self, numbers: list[int]) -> None:  # noqa: N802 - LoadGen's name
        self.completed += numbers


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def loadgen() -> LoadGen:
    return LoadGen()


def _target(server: Any, loadgen: LoadGen, *, rows: int, under_way: int) -> Target:
    return Target(server, loadgen, "digits", "pixels", "scores", IMAGES, rows=rows, under_way=under_way)


def _samples(count: int) -> list[Any]:
    return [SimpleNamespace(id=100 + number, index=number * 3 % CLASSES) for number in range(count)]


@pytest.mark.parametrize(("rows", "under_way"), [(1, 1), (1, 1000), (4, 1), (4, 2), (32, 8)])
def test_every_sample_is_answered_once_with_its_own_label(
    server: Server, loadgen: LoadGen, rows: int, under_way: int
) -> None:
    target, samples = _target(server, loadgen, rows=rows, under_way=under_way), _samples(23)
    for sample in samples[:11]:
        target.issue([sample])
    target.issue(samples[11:])
    while server.asked:
        assert len(server.asked[0][0].raw_input_contents) == 1
        assert server.asked[0][0].inputs[0].shape[0] <= rows
        server.answer()
    assert sorted(loadgen.completed) == [sample.id for sample in samples]
    assert target.labels == {number: number for number in range(CLASSES)}
    assert target.failed == 0
    assert server.most <= under_way


def test_samples_that_wait_travel_together(server: Server, loadgen: LoadGen) -> None:
    target = _target(server, loadgen, rows=4, under_way=1)
    for sample in _samples(6):
        target.issue([sample])
    sizes = []
    while server.asked:
        sizes.append(server.asked[0][0].inputs[0].shape[0])
        server.answer()
    assert sizes == [1, 4, 1]


def test_samples_without_an_answer_are_completed_and_counted(server: Server, loadgen: LoadGen) -> None:
    target, samples = _target(server, loadgen, rows=4, under_way=1), _samples(9)
    target.issue(samples)
    server.answer(rows=3)  # of 4
    _, future = server.asked.popleft()
    future.set_exception(RuntimeError("refused"))
    server.answer()
    assert target.failed == 8
    assert sorted(loadgen.completed) == [sample.id for sample in samples]
