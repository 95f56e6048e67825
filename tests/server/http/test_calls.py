"""HTTP requests as handlers see them, with ASGI and without."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from inferry_server.http import calls, direct
from inferry_server.http.infer_plans import InferRequests
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import running_server
from testkit.waiting import wait_until

REQUEST = b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'


@pytest.mark.parametrize("more", [{}, {"content_encoding": "identity"}], ids=["direct", "application"])
def test_the_time_to_read_a_body_is_told_of_a_late_request(tmp_path: Path, more: dict[str, str]) -> None:
    onnx_models.save_doubler(tmp_path)
    ahead_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead_s[0])
    read = InferRequests.read

    def read_slowly(*arguments: Any, **path: Any) -> Any:
        ahead_s[0] += 0.25
        return read(*arguments, **path)

    with running_server(tmp_path) as server:
        with (
            mock.patch.object(calls, "time", clock),
            mock.patch.object(direct, "time", clock),
            mock.patch.object(InferRequests, "read", read_slowly),
        ):
            assert ask_http(server, "/v2/models/doubler/infer", REQUEST, **more).code == 200
        kept: list[dict[str, Any]] = []

        def is_kept() -> bool:  # the version keeps the request after its reply
            (version,) = ask_http(server, "/v2/models/doubler/explain").json["versions"]
            kept[:] = version["slowest"]
            return bool(kept)

        wait_until(is_kept, "the request to be kept")
    (late,) = kept
    assert late["read_us"] >= 250_000
