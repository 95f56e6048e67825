"""What a call does until it ends, with a made-up transport and clock."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client import errors
from inferry_client.calling.calls import Send
from inferry_client.messages import questions, requests
from inferry_client.retries import NO_RETRIES, RetryPolicy
from inferry_proto import classifier_pb2, open_inference_pb2
from testkit.call_steps import REFUSED_S, Silence, Transport, away, full

LIVE = open_inference_pb2.ServerLiveResponse(live=True)


def _ask(transport: Transport, **options: Any) -> bool:
    return transport.make(questions.server_live(**options))


@given(down_s=st.floats(0, 9), servers=st.integers(1, 3))
def test_a_restart_that_ends_before_the_deadline_is_no_error(down_s: float, servers: int) -> None:
    transport = Transport(lambda _, now: away() if 1 <= now < 1 + down_s else LIVE, servers=servers)
    for _ in range(servers):
        assert _ask(transport)
    transport.now = 1.0
    assert _ask(transport)
    assert transport.now < 11


@given(st.floats(0.05, 30))
def test_a_server_that_stays_away_is_named_by_the_deadline(timeout_s: float) -> None:
    transport = Transport(lambda step, now: LIVE if now < 1 else Silence() if step.wait else away())
    assert _ask(transport)
    transport.now = 1.0
    with pytest.raises(errors.ServerUnavailableError):
        _ask(transport, timeout_s=timeout_s)
    assert transport.now <= 1 + timeout_s + 2 * REFUSED_S


def test_a_client_that_never_reached_a_server_gives_up_within_seconds() -> None:
    transport = Transport(lambda *_: away())
    with pytest.raises(errors.ServerUnavailableError):
        _ask(transport)
    assert transport.now < 2.6


def test_once_reached_a_lone_server_is_waited_for_and_not_asked_again_and_again() -> None:
    transport = Transport(lambda step, now: away() if now >= 1 and not step.wait else LIVE)
    _ask(transport)
    transport.now = 1.0
    assert _ask(transport)
    assert [step.wait for _, step in transport.sent] == [False, False, True]


@given(st.lists(st.sampled_from(["full", "away", "draining"]), max_size=30), st.floats(0.1, 20))
def test_no_call_outlasts_its_deadline_whatever_servers_say(words: list[str], timeout_s: float) -> None:
    said = {"full": full(0.2), "away": away(), "draining": errors.ServerUnavailableError("draining")}
    script = iter(words)
    transport = Transport(lambda *_: said.get(next(script, "")) or Silence(), servers=2)
    with pytest.raises(errors.InferryError):
        _ask(transport, timeout_s=timeout_s)
    assert transport.now <= timeout_s + len(words) * REFUSED_S + 0.01


def test_a_full_server_is_asked_again_exactly_when_it_said() -> None:
    transport = Transport(lambda _, now: full(0.5) if now < 0.4 else LIVE)
    assert _ask(transport)
    (first, _), (second, _) = transport.sent
    assert second - first == pytest.approx(0.5 + REFUSED_S)


@pytest.mark.parametrize(
    "error", [errors.ModelNotFoundError(""), errors.InvalidRequestError(""), errors.ServerError("")]
)
def test_what_cannot_succeed_is_asked_once(error: errors.InferryError) -> None:
    transport = Transport(lambda *_: error, servers=3)
    with pytest.raises(type(error)):
        _ask(transport)
    assert len(transport.sent) == 1


def test_calls_that_overlasting_overload_meets_are_refused_soon() -> None:
    transport = Transport(lambda *_: full())
    for _ in range(300):
        with pytest.raises(errors.OverloadedError):
            _ask(transport)
    assert len(transport.sent) == 300 + 49


def test_without_retries_one_attempt_is_made() -> None:
    transport = Transport(lambda *_: away(), servers=3, retries=NO_RETRIES)
    with pytest.raises(errors.ServerUnavailableError):
        _ask(transport)
    assert len(transport.sent) == 1


def test_a_call_whose_connection_ended_before_the_server_looked_is_made_again_at_once_and_later_with_pauses() -> None:
    ended = errors.ServerUnavailableError("GOAWAY")
    ended.unseen = True
    transport = Transport(lambda *_: LIVE if len(transport.sent) > 2 else ended)
    assert _ask(transport)
    first, second, third = [when for when, _ in transport.sent]
    assert second - first == pytest.approx(REFUSED_S)
    assert third - second > 0.05


def test_calls_go_round_the_servers() -> None:
    transport = Transport(lambda *_: LIVE, servers=3)
    for _ in range(9):
        _ask(transport)
    assert Counter(step.server for _, step in transport.sent) == {0: 3, 1: 3, 2: 3}


@given(dead=st.sets(st.integers(0, 3), max_size=3))
def test_servers_that_are_away_cost_no_pause_while_another_serves(dead: set[int]) -> None:
    transport = Transport(lambda step, _: away() if step.server in dead else LIVE, servers=4)
    for _ in range(20):
        assert _ask(transport)
    assert transport.now == pytest.approx(len(transport.sent) * REFUSED_S)
    assert len(transport.sent) == 20 + len(dead & {step.server for _, step in transport.sent})


def test_a_server_that_hangs_costs_one_deadline_and_is_left_alone_until_a_probe_answers() -> None:
    hung = True
    transport = Transport(
        lambda step, _: Silence() if hung and step.server == 1 else LIVE, servers=3, probe=lambda *_: not hung
    )
    late = 0
    for _ in range(100):
        try:
            _ask(transport, timeout_s=0.5)
        except errors.DeadlineExceededError:
            late += 1
        transport.now += 0.05
    assert late == 1
    assert len(transport.probed) >= 3
    hung = False
    for _ in range(100):
        _ask(transport, timeout_s=0.5)
        transport.now += 0.05
    assert Counter(step.server for _, step in transport.sent[-30:]) == {0: 10, 1: 10, 2: 10}


def test_probes_of_a_suspect_grow_apart_up_to_two_seconds() -> None:
    transport = Transport(lambda step, _: away() if step.server else LIVE, servers=2)
    for _ in range(1000):
        _ask(transport)
        transport.now += 0.01
    gaps = np.diff([at for at, _ in transport.probed])
    assert np.all(gaps[:3] < 1.0)
    assert np.all(gaps < 2.1)
    assert len(gaps) < 12


def _server_of(limit: int, *, describes: bool = True, version: str = "7") -> Any:
    """A server that doubles rows, up to a limit a request."""

    def answer(step: Send, _: float) -> Any:
        request: Any = step.call.request
        name = step.call.method.path.rsplit("/", 1)[1]
        if name == "DescribeModel" and describes:
            reply = classifier_pb2.DescribeModelResponse(model_version=version, max_batch_size=limit)
            reply.signature.inputs.add(name="x", datatype="INT64", shape=(-1, 2))
            return reply
        if name == "ModelConfig":
            config = open_inference_pb2.ModelConfigResponse()
            config.config.max_batch_size = limit
            return config
        if name != "ModelInfer":
            return errors.UnsupportedError(name)
        (tensor,), (raw,) = request.inputs, request.raw_input_contents
        if tensor.shape[0] > limit:
            return errors.InvalidRequestError("too many rows")
        array = np.frombuffer(raw, np.int64).reshape(tensor.shape)
        output = open_inference_pb2.ModelInferResponse(model_version=version, id=request.id)
        output.outputs.add(name="y", datatype="INT64", shape=tensor.shape)
        output.raw_output_contents.append((array * 2).tobytes())
        return output

    return answer


@given(rows=st.integers(1, 40), limit=st.integers(1, 12), describes=st.booleans())
def test_more_rows_than_a_server_takes_are_cut_and_joined_in_order(rows: int, limit: int, describes: bool) -> None:
    transport = Transport(_server_of(limit, describes=describes))
    x = np.arange(2 * rows).reshape(rows, 2)
    for _ in range(2):
        result = transport.carry_out(transport.session.perform(requests.infer("m", {"x": x}, request_id="r")))
        np.testing.assert_array_equal(result.outputs["y"], 2 * x)
        assert (result.version, result.request_id) == ("7", "r")
    inferred: list[Any] = [s.call.request for _, s in transport.sent if s.call.method.path.endswith("ModelInfer")]
    refused = [request for request in inferred if request.inputs[0].shape[0] > limit]
    assert len(refused) == (rows > limit)  # once, and never again
    if rows > limit:
        versions = [request.model_version for request in inferred[1 : 1 + -(-rows // limit)]]
        assert set(versions[1:]) == {"7"}  # one version answers the whole


def test_a_call_in_parts_takes_no_longer_than_a_whole_one_may() -> None:
    answer = _server_of(2)

    def slow(step: Send, now: float) -> Any:
        if step.timeout_s < 0.3:
            return Silence()
        transport.now += 0.3
        return answer(step, now)

    transport = Transport(slow)
    call = requests.infer("m", {"x": np.zeros((40, 2), np.int64)}, timeout_s=3.0)
    with pytest.raises(errors.DeadlineExceededError):
        transport.carry_out(transport.session.perform(call))
    assert transport.now <= 3.0 + 0.1


def test_waiting_for_a_server_that_hangs_takes_no_longer_than_it_may() -> None:
    transport = Transport(lambda *_: Silence() if transport.now > 1 else away())
    call = questions.server_ready(timeout_s=5.0)
    with pytest.raises(errors.InferryError):
        transport.carry_out(transport.session.wait_until_ready(call, interval_s=0.1))
    assert transport.now <= 5.01


def test_a_message_too_large_is_cut_by_its_bytes() -> None:
    def answer(step: Send, _: float) -> Any:
        size = step.call.request.ByteSize()
        if size > 1000:
            return errors.InvalidRequestError("", details=f"SERVER: Received message larger than max ({size} vs. 1000)")
        return _server_of(10**6)(step, 0)

    transport = Transport(answer)
    x = np.arange(1000).reshape(500, 2)
    result = transport.carry_out(transport.session.perform(requests.infer("m", {"x": x})))
    np.testing.assert_array_equal(result.outputs["y"], 2 * x)


def test_one_row_or_a_wrong_request_is_not_cut() -> None:
    transport = Transport(_server_of(0))
    for rows in (1, 3):
        with pytest.raises(errors.InvalidRequestError, match="too many rows"):
            transport.carry_out(transport.session.perform(requests.infer("m", {"x": np.zeros((rows, 2), np.int64)})))


def test_waiting_ends_when_the_server_is_ready_and_says_why_it_was_not() -> None:
    ready = open_inference_pb2.ServerReadyResponse
    transport = Transport(lambda _, now: away() if now < 1 else ready(ready=now > 2), retries=RetryPolicy())

    def wait(timeout_s: float) -> None:
        call = questions.server_ready(timeout_s=timeout_s)
        transport.carry_out(transport.session.wait_until_ready(call, interval_s=0.1))

    with pytest.raises(errors.ServerUnavailableError):
        wait(0.5)
    with pytest.raises(errors.DeadlineExceededError, match=r"host0:8001 was not ready within 1 s"):
        wait(1)
    wait(20)
    assert 2 < transport.now < 2.3
