"""How many calls are asked for, and what is known of their waiting; the tests say what time it is."""

from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.transport.intake import Intake
from testkit import onnx_models
from testkit.rpc import begin, first_output, infer_request, refusal
from testkit.servers import running_server
from testkit.waiting import SOON_S

BURST = 256


def ask_all(intake: Intake, now: float) -> int:
    """Ask until no more is wanted; returns how many that were."""
    total = 0
    while more := intake.caught_up(now):
        total += more
    return total


def test_there_is_always_room_for_a_burst() -> None:
    intake = Intake()
    assert ask_all(intake, 1.0) == BURST
    assert [intake.came(1.01)[1] for _ in range(3)] == [1, 1, 1]


def test_calls_are_asked_for_a_few_at_a_time() -> None:
    intake = Intake()
    assert 1 <= intake.caught_up(0.0) <= 32


def test_a_call_has_waited_at_most_since_nothing_was_left_to_read() -> None:
    intake = Intake()
    ask_all(intake, 0.0)
    intake.caught_up(10.0)
    assert intake.came(10.002)[0] == pytest.approx(0.002)


def test_a_call_has_waited_at_most_since_it_was_asked_for() -> None:
    intake = Intake()
    ask_all(intake, 0.0)
    for _ in range(BURST):
        intake.came(0.04)  # without a pause since 0.0
    assert intake.came(0.05)[0] == pytest.approx(0.01)


@given(st.lists(st.tuples(st.sampled_from(["came", "caught up"]), st.floats(0, 0.1))))
def test_never_more_than_a_burst_and_no_wait_below_nothing(
    steps: list[tuple[str, float]],
) -> None:
    intake, now = Intake(), 0.0
    asked = ask_all(intake, now)
    for what, passed in steps:
        now += passed
        if what == "caught up":
            more = intake.caught_up(now)
        else:
            waited_s, more = intake.came(now)
            assert 0 <= waited_s <= now
            asked -= 1
        asked += more
        assert asked <= BURST


def test_an_objective_counts_from_the_arrival_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_models.save_doubler(tmp_path)
    request = infer_request("doubler", x=np.ones((1, 3), np.float32))
    with (
        running_server(tmp_path, latency_objective_ms=60_000.0) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        assert begin(channel, "ModelInfer", request).result(SOON_S)
        monkeypatch.setattr(Intake, "came", lambda *_: (61.0, 1))
        code, message = refusal(begin(channel, "ModelInfer", request))
    assert code == "DEADLINE_EXCEEDED", message


def test_a_burst_that_the_queue_has_room_for_gets_its_replies(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    request = infer_request("doubler", x=np.ones((1, 3), np.float32))
    with (
        running_server(tmp_path, transport=transport) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        burst = [begin(channel, "ModelInfer", request) for _ in range(1000)]
        assert all(first_output(one).tolist() == [2.0] * 3 for one in burst)


def test_a_stall_of_the_process_says_nothing_about_how_long_a_call_has_waited() -> None:
    intake = Intake()
    intake.caught_up(1.0)
    intake.caught_up(2.0)
    assert intake.came(2.3)[0] == pytest.approx(0.3)
    intake.stalled(5.0)
    assert intake.came(7.5)[0] == pytest.approx(0.5)  # half a second besides the five
    assert intake.came(6.0)[0] == 0.0
