"""Where the HTTP port's libraries are not installed."""

import socket
import sys
from pathlib import Path

import pytest

from inferry_server.errors import StartError
from inferry_server.security.hosts import OwnHosts
from inferry_server.telemetry import metrics_page
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.telemetry.metrics_page import MOST_CONNECTIONS, MetricsPage
from testkit import onnx_models
from testkit.http_client import ask_http
from testkit.servers import ANY_PORT, running_server
from testkit.waiting import SOON_S


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
        for path in ("/", "/readyz", "/livez", "/metrics/x"):  # what it cannot tell must not look well
            assert ask_http(server, path).code == 404
        assert ask_http(server, "/metrics", host="example.org").code == 421  # a page that points to this machine
    assert "HTTP answers /metrics alone" in caplog.text
    assert "pip install '.[server,http]' in a checkout of Inferry" in caplog.text


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"HTTP/1.1\r\nHost: x\r\nHost: x", b"400"),
        (b"HTTP/1.1", b"400"),
        (b"HTTP/1.0", b"200"),
        (b"HTTP/1.0\r\nHost: x", b"200"),
    ],
)
def test_the_metrics_page_is_asked_of_one_host(sent: bytes, code: bytes) -> None:
    page = MetricsPage(ServerMetrics(), ANY_PORT, OwnHosts())
    page.start()
    assert page.address is not None
    try:
        with socket.create_connection((page.address.host, page.address.port), timeout=SOON_S) as connection:
            connection.sendall(b"GET /metrics " + sent + b"\r\n\r\n")
            assert connection.recv(64).split()[1] == code
    finally:
        page.close()


def test_inference_that_is_asked_for_stops_the_start(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with (
        pytest.raises(StartError, match=r"http_inference is on, and starlette.* is not installed"),
        running_server(tmp_path, http_inference="on"),
    ):
        pass


def test_clients_that_keep_connections_of_the_metrics_page_open_shut_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_page._Handler, "timeout", None)  # it is not patience that ends them
    page = MetricsPage(ServerMetrics(), ANY_PORT, OwnHosts())
    page.start()
    assert page.address is not None
    address = (page.address.host, page.address.port)
    slow: list[socket.socket] = []
    try:
        for i in range(3 * MOST_CONNECTIONS):
            slow.append(socket.create_connection(address, timeout=SOON_S))
            slow[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost" if i % 2 else b"")
        assert ask_http(page.address, "/metrics").code == 200
        assert [one.recv(1) for one in slow[:MOST_CONNECTIONS]] == [b""] * MOST_CONNECTIONS  # they made room
    finally:
        for one in slow:
            one.close()
        page.close()


def test_the_metrics_page_is_told_to_nobody_where_certificates_are_asked_for() -> None:
    for told, code in ((True, 200), (False, 401)):
        page = MetricsPage(ServerMetrics(), ANY_PORT, OwnHosts(), told=told)
        page.start()
        assert page.address is not None
        try:
            assert ask_http(page.address, "/metrics").code == code
        finally:
            page.close()
