"""More requests than can be computed, at once: what is read is not at the expense of what waits."""

import math
from pathlib import Path

import numpy as np
import pytest

from inferry_server.rpc import completion_queue
from testkit import onnx_models
from testkit.played_grpc import PlayedGrpc, played_server
from testkit.rpc import infer_request

ROOM, REQUESTS, BATCH = 64, 160, 32
REQUEST = infer_request("brightness", images=np.zeros((1, 8, 8, 1), np.uint8)).SerializeToString()


@pytest.mark.parametrize(
    ("pressed_read_s", "refused"),
    # One is refused, and there is room for a batch more; then for each that is left.
    [(0.0, 1), (math.inf, REQUESTS - ROOM)],
    ids=["computed", "if it were only read"],
)
def test_a_full_batch_is_computed_before_more_is_read_that_there_is_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pressed_read_s: float, refused: int
) -> None:
    monkeypatch.setattr(completion_queue, "_LONGEST_READ_S", math.inf)
    monkeypatch.setattr(completion_queue, "_PRESSED_READ_S", pressed_read_s)
    onnx_models.save_brightness(tmp_path, side=8)
    played = PlayedGrpc(REQUEST, REQUESTS)
    limits = {"max_batch_size": BATCH, "max_request_rows": BATCH, "max_queue_size": ROOM}
    with played_server(played, tmp_path, **limits) as transport:
        played.play(transport, lambda: True)
        count = transport._router._metrics.registry.get_sample_value
        labels = {"model": "brightness", "version": "1", "reason": "queue_full_rows"}
        assert count("inferry_requests_refused_total", labels) == refused


def test_who_refuses_requests_asks_for_no_more_calls_than_it_has_room_for(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path, side=8)
    played = PlayedGrpc(REQUEST, REQUESTS)
    limits = {"max_batch_size": BATCH, "max_request_rows": BATCH, "max_queue_size": BATCH}
    with played_server(played, tmp_path, **limits) as transport:
        before = played.requested
        rounds = iter((False, False, True))
        played.play(transport, lambda: next(rounds))
    # Every call of the first round was replaced by another one; then enough are asked for, and gRPC refuses the rest.
    assert played.requested - before == REQUESTS
