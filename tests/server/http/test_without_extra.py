"""Where the HTTP port's libraries are not installed."""

import sys
from pathlib import Path

import pytest

from inferry_server.errors import StartError
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import running_server


@pytest.fixture(autouse=True)
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("inferry_server.http")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.routing", None)


def test_the_metrics_page_is_there_and_the_log_says_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        assert b"inferry_ready 1.0" in ask_http(server, "/metrics").body
    assert "HTTP answers /metrics alone" in caplog.text
    assert "pip install 'inferry[server,http]'" in caplog.text


def test_inference_that_is_asked_for_stops_the_start(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with (
        pytest.raises(StartError, match=r"http_inference is on, and starlette.* is not installed"),
        running_server(tmp_path, http_inference="on"),
    ):
        pass
