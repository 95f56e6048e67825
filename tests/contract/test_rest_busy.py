"""The REST half while the device is busy: 429 with the time to come back, deadlines, and clients that go."""

import http.client
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from inferry_server.app import Server
from testkit import onnx_models
from testkit.gated_server import GatedServer, gated_server
from testkit.http_client import HttpAnswer, ask_http
from testkit.waiting import wait_until

pytest.importorskip("uvicorn")

INFER = "/v2/models/doubler/infer"


def body(rows: int = 1, **parameters: Any) -> bytes:
    data = [1.0] * 3 * rows
    inputs = [{"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": data}]
    return json.dumps({"inputs": inputs, "parameters": parameters}).encode()


class Asking:
    """A request on a thread of its own."""

    def __init__(self, server: Server, sent: bytes) -> None:
        self._answer: HttpAnswer | None = None
        self._thread = threading.Thread(target=self._ask, args=(server, sent))
        self._thread.start()

    def _ask(self, server: Server, sent: bytes) -> None:
        self._answer = ask_http(server, INFER, sent)

    def answer(self) -> HttpAnswer:
        self._thread.join()
        assert self._answer is not None
        return self._answer


def hold(gated: GatedServer) -> Asking:
    """A request whose batch stands at the gate."""
    gated.gate.close()
    held = Asking(gated.server, body())
    gated.gate.wait_for_runs(1)
    return held


def test_a_full_queue_is_429_with_the_time_to_come_back(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    limits = {"max_batch_size": 4, "max_request_rows": 4, "max_queue_size": 4}
    with gated_server(tmp_path, **limits) as gated:
        held, waiting = hold(gated), Asking(gated.server, body(rows=4))
        gated.wait_for_queued_rows("doubler", 4)
        refused = ask_http(gated.server, INFER, body())
        assert refused.code == 429
        assert "it would hold 5 rows, the limit is 4" in refused.json["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["grpc-retry-pushback-ms"]) >= 1
        gated.gate.open()
        assert [held.answer().code, waiting.answer().code] == [200, 200]


def test_a_deadline_that_cannot_be_met_is_504(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with gated_server(tmp_path, run_s=1.0) as gated:
        answer = ask_http(gated.server, INFER, body(timeout=1000))
        assert (answer.code, "the deadline cannot be met" in answer.json["error"]) == (504, True)


def test_a_client_that_goes_takes_its_request_along(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with gated_server(tmp_path) as gated:
        held = hold(gated)
        address = gated.server.http_address
        assert address is not None
        connection = http.client.HTTPConnection(address.host, address.port)
        connection.request("POST", INFER, body())
        gated.wait_for_queued_rows("doubler", 1)
        connection.close()
        gated.wait_for_queued_rows("doubler", 0)
        gated.gate.open()
        assert held.answer().code == 200
        assert len(gated.gate.runs) == 1


def test_health_gets_its_reply_whatever_models_do(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with gated_server(tmp_path) as gated:
        held = hold(gated)
        assert ask_http(gated.server, "/readyz").code == 200
        assert ask_http(gated.server, "/metrics").code == 200
        gated.gate.open()
        assert held.answer().code == 200


def test_a_request_larger_than_a_message_may_be_is_413(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with gated_server(tmp_path, max_message_bytes=1000) as gated:
        answer = ask_http(gated.server, INFER, bytes(1001))
        assert (answer.code, answer.headers["connection"]) == (413, "close")
        assert "max_message_bytes is 1000" in answer.json["error"]


def test_a_server_that_goes_away_replies_to_what_it_has_accepted(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with gated_server(tmp_path) as gated:
        held = hold(gated)
        stopping = threading.Thread(target=gated.server.stop)
        stopping.start()
        wait_until(lambda: ask_http(gated.server, "/readyz").code == 503, "the server is not ready")
        gated.gate.open()
        assert held.answer().code == 200
        stopping.join()
