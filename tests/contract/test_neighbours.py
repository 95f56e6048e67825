"""Members of a batch, one cancelled, one late, one malformed: the fourth never notices, a thousand times.

A real server with a real model; the gate before its session decides who meets in a batch, and a clock
that the test moves decides who is late. On time is counted in batches: the fourth must be in the very
next one, and that one must hold nobody who should not be there.
"""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from testkit import onnx_models
from testkit.gated_server import GatedServer, count_outcomes, gated_server
from testkit.rpc import Future, begin, first_output, infer_request, refusal
from testkit.waiting import wait_until

REPETITIONS = 1000
METHOD = OPEN_INFERENCE["ModelInfer"].path
POISON = 99  # not in the model's table of four: the whole run fails
LATE_AFTER_S, MOVED_S, PATIENT_S = 1.0, 2.0, 10.0


@pytest.fixture
def gated(transport: str, tmp_path: Path) -> Iterator[GatedServer]:
    onnx_models.save_picky(tmp_path)
    with gated_server(tmp_path, transport=transport) as running:
        yield running


@pytest.fixture
def channel(gated: GatedServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gated.address) as opened:
        yield opened


def message(index: int, timeout_s: float | None = None) -> ModelInferRequest:
    built = infer_request("picky", index=np.array([index], np.int64))
    if timeout_s is not None:
        built.parameters["timeout"].int64_param = int(timeout_s * 1e6)
    return built


def ask(channel: grpc.Channel, index: int, timeout_s: float | None = None) -> Future:
    return begin(channel, "ModelInfer", message(index, timeout_s))


def occupy(gated: GatedServer, channel: grpc.Channel) -> Future:
    """Keep the device busy, so that what comes next meets in a batch.

    Its run fails in the end, and the time of a failed one is no lesson: the clock can be moved while
    it is held, and the server goes on believing that its device is fast.
    """
    gated.gate.close()
    busy = ask(channel, POISON)
    gated.gate.wait_for_runs(1)
    return busy


def batches(gated: GatedServer) -> list[list[int]]:
    """What each run was given, without the one that kept the device busy."""
    return [run["index"].tolist() for run in gated.gate.runs[1:]]


def test_four_requests_that_meet_while_the_device_is_busy_share_a_batch(
    gated: GatedServer, channel: grpc.Channel
) -> None:
    """Without this, the test below would prove nothing."""
    busy = occupy(gated, channel)
    four = [ask(channel, index) for index in range(4)]
    gated.wait_for_queued_rows("picky", 4)
    gated.gate.open()
    assert [first_output(one).tolist() for one in four] == [[10.0 * index] for index in range(4)]
    assert [sorted(batch) for batch in batches(gated)] == [[0, 1, 2, 3]]
    assert refusal(busy)[0] == "INTERNAL"


def test_one_is_cancelled_one_late_one_malformed_and_the_fourth_gets_the_right_reply_on_time(
    gated: GatedServer, channel: grpc.Channel
) -> None:
    for repetition in range(REPETITIONS):
        one_round(
            gated,
            channel,
            index=repetition % 4,
            cancelled_while_queued=repetition % 2 == 0,
            malformed_for_the_model=repetition % 3 == 0,
        )
    metrics = gated.server.metrics
    received = int(metrics.received.labels(METHOD).value)
    assert received == 5 * REPETITIONS
    wait_until(lambda: count_outcomes(metrics, METHOD).total() == received, "one outcome for each request")


def one_round(
    gated: GatedServer,
    channel: grpc.Channel,
    *,
    index: int,
    cancelled_while_queued: bool,
    malformed_for_the_model: bool,
) -> None:
    busy = occupy(gated, channel)
    fourth = ask(channel, index, PATIENT_S)
    cancelled, late = ask(channel, 1), ask(channel, 2, LATE_AFTER_S)
    malformed = ask(channel, POISON) if malformed_for_the_model else begin(channel, "ModelInfer", cut_off())
    if not malformed_for_the_model:
        assert refusal(malformed)[0] == "INVALID_ARGUMENT"  # before it could meet anybody
    queued = 3 + malformed_for_the_model
    gated.wait_for_queued_rows("picky", queued)
    if cancelled_while_queued:
        cancelled.cancel()
        gated.wait_for_queued_rows("picky", queued - 1)
    gated.clock.advance(MOVED_S)

    gated.gate.let(1)  # what kept the device busy is done; the others' batch comes to the gate
    gated.gate.wait_for_runs(2)
    code, text = refusal(late)
    assert (code, "late" in text) == ("DEADLINE_EXCEEDED", True)
    if not cancelled_while_queued:
        cancel_and_wait(gated, cancelled)
    gated.gate.open()

    assert first_output(fourth).tolist() == [10.0 * index]
    if malformed_for_the_model:
        assert refusal(malformed)[0] == "INTERNAL"
    assert refusal(busy)[0] == "INTERNAL"
    together = [index, *([] if cancelled_while_queued else [1]), *([POISON] if malformed_for_the_model else [])]
    first, *alone = batches(gated)
    assert sorted(first) == sorted(together)  # the very next batch, and nobody late or cancelled in it
    assert sorted(alone) == ([[index], [POISON]] if malformed_for_the_model else [])


def cut_off() -> ModelInferRequest:
    """A request whose tensor lacks its last byte."""
    built = message(3)
    built.raw_input_contents[0] = built.raw_input_contents[0][:-1]
    return built


def cancel_and_wait(gated: GatedServer, cancelled: Future) -> None:
    """Cancel a request whose batch runs already."""
    metrics = gated.server.metrics
    before = count_outcomes(metrics, METHOD)["CANCELLED"]
    cancelled.cancel()
    wait_until(
        lambda: count_outcomes(metrics, METHOD)["CANCELLED"] == before + 1, "the server to hear of the cancellation"
    )
