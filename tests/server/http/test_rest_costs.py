"""What a REST request costs, counted instead of timed: the same on a busy machine.

Counted is what the HTTP port's thread does. Who makes a count larger raises its bound here, with a reason; who makes
it much smaller lowers it.
"""

import gc
import json
import sys
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferry_server.http.infer_request import HEADER_LENGTH
from inferry_server.telemetry.exposition import write_page
from testkit import onnx_models
from testkit.call_counter import CallCounter
from testkit.played_http import PlayedHttp, played_http
from testkit.servers import running_server

SIDE, CLIENTS, ROUNDS = 28, 16, 3
KNOWN_PYTHON = sys.version_info[:2] == (3, 11)  # others call their own functions more or less often
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
PIXELS = np.arange(SIDE * SIDE).astype(np.uint8)


def request(*, as_bytes: bool) -> bytes:
    tensor: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 1]}
    if as_bytes:
        tensor["parameters"] = {"binary_data_size": PIXELS.nbytes}
        text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        line, body = f"{HEADER_LENGTH}: {len(text)}\r\n", text + PIXELS.tobytes()
    else:
        tensor["data"] = PIXELS.tolist()
        line, body = "Content-Type: application/json\r\n", json.dumps({"inputs": [tensor]}).encode()
    head = f"POST /v2/models/brightness/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.skipif(not KNOWN_PYTHON, reason="the bounds are for Python 3.11")
@pytest.mark.parametrize(("as_bytes", "most"), [(True, 172), (False, 192)], ids=["bytes", "JSON"])
def test_a_request_takes_so_many_calls_of_functions(tmp_path: Path, as_bytes: bool, most: int) -> None:
    onnx_models.save_brightness(tmp_path, side=SIDE)
    with running_server(tmp_path) as server, played_http(server, CLIENTS) as played:
        sent = request(as_bytes=as_bytes)
        played.play(sent, ROUNDS)  # plans are made
        counts = [counted(played, partial(played.play, sent, rounds)) for rounds in (1, 1 + ROUNDS)]
    a_request = (counts[1] - counts[0]) / (ROUNDS * CLIENTS)
    assert a_request <= most, f"{a_request:.1f} calls of functions a request; expected at most {most}"


def counted(played: PlayedHttp, act: Any) -> int:
    counter = CallCounter()
    played.counted = counter.count
    act()
    return counter.counted.total()


def test_a_reply_is_one_write_and_all_of_a_batch_are_one_wake_up(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path, side=SIDE)
    with running_server(tmp_path) as server, played_http(server, CLIENTS) as played:
        played.play(request(as_bytes=True), ROUNDS)
        assert played.wake_ups == ROUNDS
        for transport in played.transports:
            assert len(transport.written) == ROUNDS
            assert all(reply.startswith(b"HTTP/1.1 200 OK\r\n") for reply in transport.written)


def test_neither_a_body_nor_a_connection_is_kept_when_it_is_done_with(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path, side=SIDE)
    with running_server(tmp_path) as server, played_http(server, 1) as played:
        played.play(request(as_bytes=True), 1)
        connection = played.connections.pop()
        assert connection.cycle.pieces == []
        connection.connection_lost(None)
        played.transports.clear()
        gone = weakref.ref(connection)
        gc.disable()
        try:
            del connection
            assert gone() is None
        finally:
            gc.enable()


@pytest.mark.skipif(not KNOWN_PYTHON, reason="the bound is for Python 3.11")
def test_a_metrics_page_takes_so_many_calls_of_functions(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path, side=SIDE)
    with running_server(tmp_path) as server, played_http(server, CLIENTS) as played:
        played.play(request(as_bytes=True), 1)
        families, _ = write_page(server.metrics.registry, OPEN_METRICS)
        seen = [family.count(b"\n") for family in families]
        counter = CallCounter()
        calls = counter.count(lambda: list(write_page(server.metrics.registry, OPEN_METRICS)[0]))
    a_line = calls / sum(seen)
    assert a_line <= 6.5, f"{a_line:.2f} calls of functions a line; expected at most 6.5"
