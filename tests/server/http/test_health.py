"""Health over HTTP: what probes and the protocol's clients are told, and nothing for paths that do not exist."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from inferry_proto.version_labels import write_version_labels
from inferry_server.app import Server
from inferry_server.lifecycle import Phase
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import running_server


def get(server: Server, path: str) -> tuple[int, Any]:
    """The status code, and the JSON of the answer."""
    answer = ask_http(server, path)
    return answer.code, answer.json


READY: list[tuple[str, int, Any]] = [
    ("/livez", 200, {"live": True}),
    ("/readyz", 200, {"ready": True}),
    ("/v2/health/live", 200, {"live": True}),
    ("/v2/health/ready", 200, {"ready": True}),
    ("/v2/models/doubler/ready", 200, {"name": "doubler", "ready": True}),
    ("/v2/models/doubler/versions/1/ready", 200, {"name": "doubler", "ready": True}),
    ("/v2/models/doubler/versions/stable/ready", 200, {"name": "doubler", "ready": True}),
    ("/v2/models/doubler/versions/7/ready", 503, {"name": "doubler", "ready": False}),
    ("/v2/models/doubler/versions/canary/ready", 503, {"name": "doubler", "ready": False}),
    ("/v2/models/nothing/ready", 404, {"error": "model 'nothing' is not in the repository"}),
]


def test_a_ready_server_says_so_of_itself_and_of_each_model(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    write_version_labels(tmp_path / "doubler", {"stable": 1})
    with running_server(tmp_path) as server:
        assert [(path, *get(server, path)) for path, _, _ in READY] == READY
        for path in ("/metricss", "/v2/models/doubler/readyz", "/livez/x", "/healthz"):
            code, answer = get(server, path)
            assert (code, list(answer)) == (404, ["error"])


def test_a_server_that_is_not_ready_lives_and_says_why(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        server.readiness.report_fault("the device is lost")
        expected = {"ready": False, "reasons": ["the device is lost"]}
        assert get(server, "/readyz") == get(server, "/v2/health/ready") == (503, expected)
        server.readiness.enter(Phase.DRAINING)
        reasons = ["the server is shutting down", "the device is lost"]
        assert get(server, "/readyz") == (503, {"ready": False, "reasons": reasons})
        assert get(server, "/livez") == (200, {"live": True})
        assert get(server, "/v2/models/doubler/ready") == (503, {"name": "doubler", "ready": False})


def test_a_server_that_reads_no_calls_does_not_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, hang_after_s=20) as server:
        for unread_s, code in ((19.0, 200), (20.0, 503), (0.0, 200)):
            monkeypatch.setattr(server._transport, "look", lambda unread_s=unread_s: unread_s)
            server._watchdog.look()
            assert get(server, "/livez")[0] == code
            assert get(server, "/readyz")[0] == code


def test_other_methods_are_refused(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        answer = ask_http(server, "/livez", b"")
        assert (answer.code, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


def test_the_metrics_page_is_in_the_format_that_is_asked_for(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        page = ask_http(server, "/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        assert b"inferry_ready 1.0" in page.body
        page = ask_http(server, "/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert page.headers["content-type"].startswith("application/openmetrics-text")
        assert page.body.endswith(b"# EOF\n")
        assert b"inferry_queue" not in ask_http(server, "/metrics?name[]=inferry_ready").body
        page = ask_http(server, "/metrics", accept_encoding="gzip")
        assert b"inferry_ready 1.0" in gzip.decompress(page.body)
