"""What holds of requests that came together and are queued as one."""

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from inferry_proto.open_inference_pb2 import ModelInferResponse
from inferry_server.batching.coalesced import requests_in
from inferry_server.batching.request import InferenceRequest
from inferry_server.wire.encode import ResponseTemplate
from testkit import onnx_models
from testkit.gated_server import gated_server
from testkit.rpc import infer_request
from testkit.sides import Asked, Side, Token, answers, doubled, picked
from testkit.waiting import wait_until


@contextmanager
def one_side(repository: Path, **options: Any) -> Iterator[Side]:
    """A server that has answered a request of each kind once, so that it knows how to read it."""
    with gated_server(repository, **options) as there:
        side = Side(there, together=True)
        for model in there.server.registry.served():
            [call] = side.ask([doubled(0, 0, 0) if model.model.startswith("doubler") else picked(0)])
            wait_until(lambda call=call: call.ended, "the first answer")  # type: ignore[misc]
        yield side


@contextmanager
def admitted(side: Side) -> Iterator[list[int]]:
    """How many requests each of those that are queued stands for."""
    queued: list[int] = []

    def submit(original: Callable[[InferenceRequest], None], request: InferenceRequest) -> None:
        queued.append(requests_in(request))
        original(request)

    with ExitStack() as stack:
        for version in side.there.server.registry.served():
            batcher = version.batcher
            stack.enter_context(mock.patch.object(batcher, "submit", partial(submit, batcher.submit)))
        yield queued


def test_like_requests_are_queued_as_one_up_to_a_share_of_a_batch(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side, admitted(side) as queued:
        assert answers(side.ask([doubled(i, 0, 0) for i in range(20)])) == [2.0 * i for i in range(20)]
        assert queued == [8, 8, 4]
    with one_side(tmp_path, max_batch_size=16) as side, admitted(side) as queued:
        assert answers(side.ask([doubled(i, 0, 0) for i in range(9)])) == [2.0 * i for i in range(9)]
        assert queued == [4, 4, 1]
    with one_side(tmp_path, max_batch_size=4) as side, admitted(side) as queued:
        assert answers(side.ask([doubled(i, 0, 0) for i in range(3)])) == [0.0, 2.0, 4.0]
        assert queued == [1, 1, 1]


def test_of_those_that_wait_as_one_the_cancelled_ones_are_counted_so_and_all_of_them_are_not_computed(
    tmp_path: Path,
) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side:
        held = side.hold(doubled(1, 0, 0))
        some, none = side.ask([doubled(i, 0, 0) for i in range(4)]), side.ask([doubled(7, 0, 0) for _ in range(5)])
        for call in (some[1], some[2], *none):
            call.cancelled()
        assert side.there.queued_rows("doubler") == 2
        side.there.gate.open()
        assert answers([*held, some[0], some[3]]) == [2.0, 0.0, 6.0]
        assert [len(run["x"]) for run in side.there.gate.runs] == [1, 2]
        counted = side.counted()
        of = 'inferry_model_requests_total{model="doubler",outcome="%s",reason="%s",version="1"}'
        assert counted[of % ("answered", "")] == 4  # with the first one of all
        assert sum(value for name, value in counted.items() if "cancelled" in name and "model=" in name) == 7


def test_of_those_that_are_computed_as_one_the_cancelled_ones_are_not_answered(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side:
        before = side.counted()
        calls = side.hold(*(doubled(i, 0, 0) for i in range(4)))
        calls[0].cancelled()
        calls[2].cancelled()
        side.there.gate.open()
        assert answers([calls[1], calls[3]]) == [2.0, 6.0]
        after = side.counted()
        more = {name: value - before.get(name, 0) for name, value in after.items() if "model=" in name}
        requests = {name.split('"')[3]: value for name, value in more.items() if "model_requests_total" in name}
        assert requests == {"answered": 2, "cancelled": 2}
        [input_bytes] = [value for name, value in more.items() if "tensor_bytes" in name]
        assert input_bytes == 2 * 3 * 4


def test_of_those_that_have_no_room_together_as_many_are_queued_as_have_some(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path, max_queue_size=32, max_request_rows=32) as side, admitted(side) as queued:
        held = side.hold(doubled(1, 0, 0))
        held += side.ask([doubled(1, 0, 0)] * 3)
        calls = side.ask([doubled(i, 0, 0) for i in range(40)])
        assert [call.status.reason for call in calls if call.status] == ["queue_full_rows", *["shed"] * 10]
        assert queued == [1, 3, 8, 8, 8, 8, *[1] * 6]  # five of the fourth eight find room, and others are shed unasked
        more = side.ask([doubled(1, 0, 0)] * 2)  # while requests are refused, each asks for itself
        assert all(call.status for call in more)
        assert queued[-1] == 1
        side.there.gate.open()
        assert answers([*held, *calls[:29]]) == [2.0] * 4 + [2.0 * i for i in range(29)]
        side.there.clock.advance(1.0)
        answers(side.ask([doubled(1, 0, 0)] * 3))
        assert queued[-1] == 3


def test_while_those_that_are_queued_as_one_are_late_each_asks_for_itself(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side, admitted(side) as queued:
        side.there.clock.advance(5.0)
        for expected in ([3, 1, 1, 1], [1, 1, 1]):
            calls = side.ask([doubled(1, 0, 0)] * 3, [side.there.clock() - 1.0] * 3)
            assert [call.status.reason for call in calls if call.status] == ["deadline_at_admission"] * 3
            assert queued == expected
            queued.clear()
        side.there.clock.advance(1.0)
        answers(side.ask([doubled(1, 0, 0)] * 3))
        assert queued == [3]


def test_while_a_variant_relieves_the_model_each_request_asks_for_itself(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side, admitted(side) as queued:
        relief = side.there.server.registry.find("doubler", "").batcher.relief
        relief.active = True
        answers(side.ask([doubled(1, 0, 0)] * 3))
        relief.active = False
        assert queued == [1, 1, 1]


def test_traffic_is_split_request_by_request(tmp_path: Path) -> None:
    for version in (1, 2):
        onnx_models.save_doubler(tmp_path, version=version)
    (tmp_path / "doubler" / "config.pbtxt").write_text("version_policy: { all {} }")
    with one_side(tmp_path) as side, admitted(side) as queued:
        side.there.server.registry.set_labels("doubler", {"old": 1, "new": 2}, {"old": 50, "new": 50})
        calls = side.ask([doubled(1, 0, 0)] * 20)
        answers(calls)
        assert {ModelInferResponse.FromString(call.answers[0]).model_version for call in calls} == {"1", "2"}
        assert queued == [1] * 20
        named = infer_request("doubler", x=np.zeros((1, 3), np.float32))
        named.model_version = "old"
        answers(side.ask([named.SerializeToString()]))
        answers(side.ask([named.SerializeToString()] * 4))  # which names its version: there is one for all
        assert queued[-1] == 4


def test_a_request_that_is_traced_is_queued_by_itself(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side, admitted(side) as queued:
        calls = [Asked(side.router) for _ in range(4)]
        nothing = {f"{name}.return_value": None for name in ("concerns", "trace_batch", "ended")}
        calls[1].trace = mock.MagicMock(trace_id="0" * 32, **nothing)
        side.router.handle_alike([(call, doubled(i, 0, 0)) for i, call in enumerate(calls)])
        assert answers(calls) == [0.0, 2.0, 4.0, 6.0]
        assert queued == [1, 3]


def test_those_whose_own_deadline_has_passed_are_late_and_the_others_are_queued_again(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side:
        held = side.hold(doubled(1, 0, 0))
        now = side.there.clock()
        calls = side.ask([doubled(i, 0, 0) for i in range(3)], [now + 1.0, now + 9.0, now + 2.0])
        side.there.clock.advance(1.5)
        side.there.gate.open()
        assert answers([*held, *calls[1:]]) == [2.0, 2.0, 4.0]
        assert calls[0].status is not None
        assert calls[0].status.reason == "deadline_in_queue"
        [late] = side.there.server.registry.find("doubler", "").batcher._execution._late.refused()
        assert (late.rows, late.deadline_s) == (1, 1.0)


def test_what_fails_together_runs_one_by_one_though_the_queue_is_full(tmp_path: Path) -> None:
    onnx_models.save_picky(tmp_path)
    with one_side(tmp_path, max_queue_size=32, max_request_rows=32) as side:
        failing = side.hold(picked(1), picked(2), picked(9), picked(3))
        waiting = side.ask([picked(1) for _ in range(32)])
        side.there.gate.open()
        assert answers([failing[0], failing[1], failing[3], *waiting]) == [10.0, 20.0, 30.0, *[10.0] * 32]
        assert failing[2].status is not None
        assert failing[2].status.code_name == "INTERNAL"


def test_of_those_that_are_late_together_as_many_are_computed_as_can_be_in_time(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path, run_s=0.5) as side:
        for _ in range(4):
            answers(side.ask([doubled(1, 0, 0)]))
        held = side.hold(doubled(1, 0, 0))
        now = side.there.clock()
        calls = side.ask([doubled(i, 0, 0) for i in range(4)], [now + 1.2, now + 3.0, now + 3.0, now + 3.0])
        side.there.clock.advance(1.0)
        side.there.gate.open()
        assert answers([*held, *calls[1:]]) == [2.0, 2.0, 4.0, 6.0]
        assert calls[0].status is not None
        assert calls[0].status.reason == "deadline_in_queue"


def test_bulk_work_whose_batches_may_be_small_is_queued_request_by_request(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side, admitted(side) as queued:
        answers(side.ask([doubled(1, 0, 0, priority=2)]))
        answers(side.ask([doubled(i, 0, 0, priority=2) for i in range(4)]))
        assert queued == [1] * 5


def test_an_empty_lane_takes_no_more_together_than_it_has_room_for(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    (tmp_path / "doubler" / "config.pbtxt").write_text(
        "dynamic_batching { default_queue_policy { max_queue_size: 2 } }"
    )
    with one_side(tmp_path) as side:
        held = side.hold(doubled(1, 0, 0))
        calls = side.ask([doubled(i, 0, 0) for i in range(8)])
        assert sum(call.ended for call in calls) == 6
        side.there.gate.open()
        assert answers([*held, *calls[:2]]) == [2.0, 0.0, 2.0]


def test_while_requests_are_shed_none_are_queued_together(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side, admitted(side) as queued:
        shedding = side.there.server.registry.find("doubler", "").batcher.shedding
        shedding.begin(0.1)
        calls = side.ask([doubled(1, 0, 0)] * 3)
        assert [call.status.reason for call in calls if call.status] == ["shed"] * 3
        assert queued == []
        shedding.end()


def test_a_reply_that_cannot_be_made_for_all_is_made_for_each(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side, mock.patch.object(ResponseTemplate, "encode_rows", side_effect=ValueError):
        assert answers(side.ask([doubled(i, 0, 0) for i in range(4)])) == [0.0, 2.0, 4.0, 6.0]
        assert 'outcome="failed"' not in str(side.counted())


def test_each_of_those_that_were_slow_together_is_told_of(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path, run_s=0.5) as side:
        late = side.there.server.registry.find("doubler", "").batcher._execution._late
        calls = [Asked(side.router, waited_s=waited_s) for waited_s in (0.25, 0.0, 1.0)]
        names = ("one", "two", "six")
        side.router.handle_alike(
            [(call, doubled(1, 0, 0, request_id=name)) for call, name in zip(calls, names, strict=True)]
        )
        answers(calls)
        wait_until(lambda: len(late.slowest()) == 4, "all of them to be kept")
        told = {one.request_id: one for one in late.slowest() if one.request_id}
        assert {name: (one.total_s, one.read_s, one.rows) for name, one in told.items()} == {
            "six": (1.5, 1.0, 1), "one": (0.75, 0.25, 1), "two": (0.5, 0.0, 1),
        }  # fmt: skip
        assert {(one.batch.rows, one.batch.requests) for one in told.values() if one.batch} == {(3, 3)}


def ask_and_forget(side: Side, messages: Sequence[bytes]) -> Sequence[weakref.ref[Token]]:
    """What tells whether calls that have their outcomes are still in memory."""
    calls = side.ask(messages)
    wait_until(lambda: all(call.ended for call in calls), "every outcome")
    return [weakref.ref(call.token) for call in calls]


def test_what_was_queued_as_one_goes_with_its_last_reply(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    onnx_models.save_picky(tmp_path)
    with one_side(tmp_path) as side:
        batcher = side.there.server.registry.find("doubler", "").batcher
        submit, some = batcher.submit, [doubled(i, 0, 0) for i in range(4)]

        def submit_and_be_late(request: InferenceRequest) -> None:
            """Others have computed it when it has been queued."""
            submit(request)
            wait_until(lambda: request.settled and not batcher._execution.under_way(), "the reply")

        gc.collect()
        gc.disable()
        try:
            gone = [*ask_and_forget(side, some), *ask_and_forget(side, [picked(0), picked(9), picked(1)])]
            batcher.submit = submit_and_be_late
            gone += ask_and_forget(side, some)
            wait_until(lambda: not any(one() for one in gone), "the calls to go")
        finally:
            gc.enable()


def test_a_server_that_stops_tells_each_of_those_that_still_wait(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with one_side(tmp_path) as side:
        held = side.hold(doubled(1, 0, 0))
        calls = side.ask([doubled(i, 0, 0) for i in range(3)])
        batcher = side.there.server.registry.find("doubler", "").batcher
        assert not batcher.close(0.0)
        assert [call.status.reason for call in calls if call.status] == ["shutting_down"] * 3
        refused = [value for name, value in side.counted().items() if "shutting_down" in name and "model=" in name]
        assert refused == [3, 3]
        side.there.gate.open()
        assert answers(held) == [2.0]
