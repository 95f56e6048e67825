"""People and jobs on one real server: waiting is counted in batches, on a device that the test holds."""

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import numpy as np
import pytest

from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.batching.policy import Lane
from testkit import onnx_models
from testkit.gated_server import GatedServer, gated_server
from testkit.rpc import Future, begin, first_output, infer_request

BATCH = 4
JOB, PERSON = 2, 1  # priorities
ROUNDS = 60


@pytest.fixture
def gated(transport: str, tmp_path: Path) -> Iterator[GatedServer]:
    onnx_models.save_doubler(tmp_path)
    limits = {"max_batch_size": BATCH, "max_request_rows": BATCH}
    with gated_server(tmp_path, **limits, transport=transport) as running:
        yield running


@pytest.fixture
def channel(gated: GatedServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gated.address) as opened:
        yield opened


def message(mark: float, rows: int, priority: int) -> ModelInferRequest:
    built = infer_request("doubler", x=np.full((rows, 3), mark, np.float32))
    built.parameters["priority"].uint64_param = priority
    return built


class Load:
    """Requests of one lane, each with a mark of its own: jobs positive and full, people negative and single."""

    def __init__(self, gated: GatedServer, channel: grpc.Channel, lane: Lane) -> None:
        self.answers: list[Future] = []
        self._gated, self._channel, self._lane = gated, channel, lane

    def add(self, count: int) -> list[float]:
        """Send requests and wait until they are queued; returns their marks."""
        people = self._lane is Lane.INTERACTIVE
        rows, priority, sign = (1, PERSON, -1) if people else (BATCH, JOB, 1)
        before = self._gated.queued_rows("doubler", self._lane)
        marks = [sign * float(len(self.answers) + i + 1) for i in range(count)]
        self.answers += [begin(self._channel, "ModelInfer", message(mark, rows, priority)) for mark in marks]
        self._gated.wait_for_queued_rows("doubler", before + count * rows, self._lane)
        return marks

    def check_answers(self) -> None:
        """Everybody got their own."""
        sign = -1 if self._lane is Lane.INTERACTIVE else 1
        for position, answer in enumerate(self.answers):
            assert set(first_output(answer).tolist()) == {sign * 2.0 * (position + 1)}


def saturate(gated: GatedServer, channel: grpc.Channel, jobs: int) -> Load:
    """A device that is held by one job, with others queued behind it."""
    bulk = Load(gated, channel, Lane.BULK)
    gated.gate.close()
    bulk.answers.append(begin(channel, "ModelInfer", message(1, BATCH, JOB)))
    gated.gate.wait_for_runs(1)
    bulk.add(jobs)
    return bulk


def marks_of_run(gated: GatedServer, position: int) -> set[float]:
    return set(gated.gate.runs[position]["x"][:, 0].tolist())


def test_under_saturating_bulk_load_a_person_waits_one_batch_more_than_alone_and_bulk_advances(
    gated: GatedServer, channel: grpc.Channel
) -> None:
    """Alone, a person's batch would begin when the one that runs is done, or at once."""
    bulk = saturate(gated, channel, ROUNDS + 1)
    people = Load(gated, channel, Lane.INTERACTIVE)
    randomness = random.Random(7)
    waiting: dict[float, int] = {}  # by mark: batches that began since the person came
    waited: list[int] = []
    for round_ in range(ROUNDS):
        for mark in people.add(randomness.choice((0, 0, 1, 2))) if len(waiting) < BATCH - 1 else ():
            waiting[mark] = 0
        gated.gate.let(1)
        gated.gate.wait_for_runs(round_ + 2)
        began = marks_of_run(gated, round_ + 1)
        waited += [waiting.pop(mark) for mark in began & set(waiting)]
        waiting = {mark: batches + 1 for mark, batches in waiting.items()}
    assert len(waited) > ROUNDS / 3
    assert max(waited) <= 1
    jobs = [position for position in range(ROUNDS + 1) if min(marks_of_run(gated, position)) > 0]
    assert max(b - a for a, b in pairwise(jobs)) <= 5  # at least every fifth batch is a job's
    gated.gate.open()
    people.check_answers()
    bulk.check_answers()


def test_while_both_lanes_wait_every_fifth_batch_is_a_job(gated: GatedServer, channel: grpc.Channel) -> None:
    bulk = saturate(gated, channel, 6)
    people = Load(gated, channel, Lane.INTERACTIVE)
    people.add(24 * BATCH)
    gated.gate.let(24)
    gated.gate.wait_for_runs(25)
    lanes = ["job" if min(marks_of_run(gated, position)) > 0 else "person" for position in range(25)]
    assert lanes == ["job", *["person", "person", "person", "person", "job"] * 4, *["person"] * 4]
    gated.gate.open()
    people.check_answers()
    bulk.check_answers()
