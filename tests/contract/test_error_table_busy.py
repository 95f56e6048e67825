"""The rows of the protocol's table of errors that need a device which is busy: queue, deadline, going away.

A real server with a real model behind a gate, and a clock that the test moves.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from testkit import onnx_models
from testkit.gated_server import GatedServer, count_outcomes, gated_server
from testkit.rpc import Future, begin, call, first_output, infer_request, refusal
from testkit.waiting import SOON_S, wait_until

MAX_ROWS, MAX_BYTES = 8, 72  # a row has 12 bytes


@contextmanager
def busy_server(root: Path, **settings: Any) -> Iterator[tuple[GatedServer, grpc.Channel, Future]]:
    """A server whose device is held by one request, a channel to it, and that request."""
    onnx_models.save_doubler(root)
    limits = {"max_batch_size": 4, "max_request_rows": 4, "max_queue_size": MAX_ROWS}
    with gated_server(root, **limits | settings) as gated, grpc.insecure_channel(gated.address) as channel:
        gated.gate.close()
        held = begin(channel, "ModelInfer", rows(1))
        gated.gate.wait_for_runs(1)
        yield gated, channel, held


def test_what_waits_for_all_models_together_is_bounded(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path, name="twin")
    limits = {"max_queue_bytes": 36, "max_total_queue_bytes": 72}
    with busy_server(tmp_path, transport=transport, **limits) as (gated, channel, held):
        waiting = [begin(channel, "ModelInfer", rows(1)) for _ in range(3)]
        gated.wait_for_queued_rows("doubler", 3)
        refused = begin(channel, "ModelInfer", rows(1, model="twin"))
        code, text = refusal(refused)
        assert (code, "the queues of all models are full" in text) == ("RESOURCE_EXHAUSTED", True), text
        assert pushback_ms(refused) >= 0
        counted = gated.server.metrics.registry.get_sample_value(
            "inferry_requests_refused_total", {"model": "twin", "version": "1", "reason": "queue_full_total_bytes"}
        )
        assert counted == 1
        gated.gate.open()
        assert all(first_output(one).tolist() == [2.0] * 3 for one in (held, *waiting))
        assert first_output(begin(channel, "ModelInfer", rows(1, model="twin"))).tolist() == [2.0] * 3


def rows(count: int, *, timeout_s: float = 0, priority: int = 0, model: str = "doubler") -> ModelInferRequest:
    request = infer_request(model, x=np.ones((count, 3), np.float32))
    request.parameters["timeout"].int64_param = int(timeout_s * 1e6)
    request.parameters["priority"].uint64_param = priority
    return request


def pushback_ms(refused: Future) -> int:
    return int(dict(refused.trailing_metadata())["grpc-retry-pushback-ms"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, f"it would hold {MAX_ROWS + 1} rows, the limit is {MAX_ROWS}"),
        ({"max_queue_bytes": MAX_BYTES}, f"it would hold {MAX_BYTES + 12} bytes, the limit is {MAX_BYTES}"),
    ],
)
def test_a_full_queue_is_told_apart_from_a_server_that_is_down(
    tmp_path: Path, transport: str, settings: dict[str, Any], message: str
) -> None:
    with busy_server(tmp_path, transport=transport, **settings) as (gated, channel, held):
        room = MAX_ROWS if not settings else MAX_BYTES // 12
        waiting = [begin(channel, "ModelInfer", rows(1)) for _ in range(room)]
        gated.wait_for_queued_rows("doubler", room)
        refused = begin(channel, "ModelInfer", rows(1))
        code, text = refusal(refused)
        assert (code, message in text) == ("RESOURCE_EXHAUSTED", True), text
        assert pushback_ms(refused) > 0
        bulk = begin(channel, "ModelInfer", rows(1, priority=2))  # the other lane has room of its own
        gated.gate.open()
        assert all(first_output(one).tolist() == [2.0] * 3 for one in (held, *waiting, bulk))


def test_a_queue_too_long_for_the_deadline_says_how_late_and_when_to_come_back(tmp_path: Path, transport: str) -> None:
    with busy_server(tmp_path, run_s=1.0, transport=transport) as (gated, channel, held):
        refused = begin(channel, "ModelInfer", rows(1, timeout_s=1.5))
        code, text = refusal(refused)
        assert (code, "ms after the deadline" in text) == ("RESOURCE_EXHAUSTED", True), text
        assert 400 < pushback_ms(refused) < 600
        code, text = refusal(begin(channel, "ModelInfer", rows(1, timeout_s=0.5)))
        assert (code, "ms late" in text) == ("DEADLINE_EXCEEDED", True), text  # not even if it were idle
        gated.gate.open()
        first_output(held)


def test_a_deadline_that_passes_in_the_queue_is_said_and_nothing_is_computed_for_it(
    tmp_path: Path, transport: str
) -> None:
    with busy_server(tmp_path, transport=transport) as (gated, channel, held):
        late = begin(channel, "ModelInfer", rows(1, timeout_s=1.0))
        gated.wait_for_queued_rows("doubler", 1)
        gated.clock.advance(3.0)
        gated.gate.open()
        code, text = refusal(late)
        assert code == "DEADLINE_EXCEEDED"
        assert "late" in text
        first_output(held)
        assert len(gated.gate.runs) == 1


def test_a_request_cancelled_in_the_queue_is_counted_as_such_and_leaves_it(tmp_path: Path, transport: str) -> None:
    with busy_server(tmp_path, transport=transport) as (gated, channel, held):
        cancelled = begin(channel, "ModelInfer", rows(1))
        gated.wait_for_queued_rows("doubler", 1)
        cancelled.cancel()
        gated.wait_for_queued_rows("doubler", 0)
        metrics, method = gated.server.metrics, OPEN_INFERENCE["ModelInfer"].path
        wait_until(lambda: count_outcomes(metrics, method) == {"CANCELLED": 1}, "the outcome to be counted")
        gated.gate.open()
        first_output(held)
        assert len(gated.gate.runs) == 1


def test_a_server_that_goes_away_finishes_what_it_has_and_is_unavailable_to_what_is_new(
    tmp_path: Path, transport: str
) -> None:
    with busy_server(tmp_path, transport=transport) as (gated, channel, held):
        finished: list[bool] = []
        stopping = threading.Thread(target=lambda: finished.append(gated.server.stop()))
        stopping.start()
        for model in ("doubler", "nothing"):  # whatever is asked: never NOT_FOUND
            wait_until(
                lambda model=model: refused_as(channel, model) == "UNAVAILABLE",  # type: ignore[misc]
                "new requests to be refused",
            )
        gated.gate.open()
        stopping.join(SOON_S)
        assert finished == [True]
        assert first_output(held).tolist() == [2.0] * 3


def refused_as(channel: grpc.Channel, model: str) -> str:
    """The status of a question that waits for no device; empty where it was answered."""
    asked = begin(channel, "ModelConfig", pb.ModelConfigRequest(name=model))
    return "" if asked.exception(SOON_S) is None else str(asked.code().name)


def test_a_request_that_meets_a_closed_queue_hears_that_the_server_goes_away(tmp_path: Path, transport: str) -> None:
    with busy_server(tmp_path, transport=transport) as (gated, channel, held):
        queued = begin(channel, "ModelInfer", rows(1))
        gated.wait_for_queued_rows("doubler", 1)
        gated.server.registry.find("doubler", "").batcher.close(0)
        for one in (queued, begin(channel, "ModelInfer", rows(1))):
            code, text = refusal(one)
            assert (code, "shutting down" in text) == ("UNAVAILABLE", True), text
        gated.gate.open()
        assert first_output(held).tolist() == [2.0] * 3
        assert call(channel, "ModelReady", pb.ModelReadyRequest(name="doubler")).ready
