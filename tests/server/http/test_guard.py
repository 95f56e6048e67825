"""Who may ask for more than health and metrics."""

import socket
import ssl
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.addresses import Address
from inferry_server.app import Server
from inferry_server.errors import StartError
from inferry_server.security.hosts import OwnHosts
from inferry_server.settings.settings import Settings
from testkit import onnx_models
from testkit.certificates import Authority
from testkit.http_client import ask_http
from testkit.mutual_tls import mutual_tls
from testkit.policies import save_policy, token_of
from testkit.servers import running_server
from testkit.waiting import wait_until


@pytest.mark.parametrize(
    ("path", "origin", "host", "code"),
    [
        ("/v2", None, "anything", 421),
        ("/v2", None, "example.org:8002", 421),  # a GET of a page whose name was made to point to this machine
        ("/live.json", None, "localhost.example.org", 421),
        ("/metrics", None, "example.org", 421),
        ("/v2/models/doubler/ready", None, "127.0.0.1.example.org", 421),
        ("/v2", None, "LocalHost.:1", 200),
        ("/v2", None, "inferry.localhost", 200),
        ("/v2", "http://localhost:8002", "localhost:8002 ", 200),
        ("/v2", None, "[::1]:8002", 200),
        ("/v2", "http://10.0.0.7:30001", "10.0.0.7:30001", 200),  # what forwards to here
        ("/metrics", None, "10.0.0.7", 200),
        ("/v2/health/ready", None, "example.org", 200),  # those who probe name what they like
        ("/livez", None, "backend", 200),
        ("/v2", "http://localhost:8002", "localhost:8002", 200),
        ("/v2", "http://127.0.0.1:8002", "127.0.0.1:8002", 200),
        ("/v2", "http://localhost:8002", "127.0.0.1:8002", 403),
        ("/v2", "https://example.org", "127.0.0.1:8002", 403),
        ("/v2", "http://example.org", "example.org", 421),
        ("/v2", "null", "127.0.0.1:8002", 403),
        ("/v2", "http://[", "127.0.0.1", 403),
        ("/v2", "", "127.0.0.1", 403),
        ("/readyz", "https://example.org", "127.0.0.1:8002", 200),
    ],
)
def test_pages_of_other_sites_may_ask_for_health_alone(
    tmp_path: Path, path: str, origin: str | None, host: str, code: int
) -> None:
    onnx_models.save_doubler(tmp_path)
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    with running_server(tmp_path) as server:
        assert ask_http(server, path, None, **headers).code == code


def test_a_name_that_is_none_of_the_servers_is_told_which_are(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        refused = ask_http(server, "/v2/models/doubler/infer", b"{}", host="example.org" + "x" * 999)
        assert refused.code == 421
        assert "expected localhost, an IP address or a name of setting http_hosts" in refused.json["error"]
        assert len(refused.body) < 400
        assert ask_http(server, "/v2/models/doubler/infer", b"{}").code == 400


def test_names_that_a_setting_lists_are_the_servers_wherever_it_listens(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, http_hosts="Models.example, inferry") as server:
        for host, code in (("models.example", 200), ("INFERRY:8002", 200), ("localhost", 200), ("other.example", 421)):
            assert ask_http(server, "/v2", host=host).code == code
        assert ask_http(server, "/v2", host="inferry", origin="https://inferry").code == 200


@pytest.mark.parametrize(
    ("settings", "host", "own"),
    [
        ({}, "example.org", False),
        ({"http_address": Address("localhost", 8002)}, "example.org", False),
        ({"http_address": Address("::1", 8002)}, "example.org", False),
        ({"http_address": Address("0.0.0.0", 8002)}, "example.org", True),  # gateways and services have names
        ({"http_address": Address("0.0.0.0", 8002), "http_hosts": "x.org"}, "example.org", False),
        ({"http_address": Address("0.0.0.0", 8002), "http_hosts": "x.org"}, "10.1.2.3:8002", True),
        # With TLS, a browser does not take the certificate for another name's.
        ({"tls_certificate": Path("c"), "tls_private_key": Path("k"), "http_inference": "on"}, "example.org", True),
        ({"tls_certificate": Path("c"), "tls_private_key": Path("k")}, "example.org", False),  # its HTTP is plain
        ({}, "", True),  # HTTP/1.0
        ({}, "[::1].example.org", False),
        ({}, "localhost:80.example.org", False),
        ({}, "[localhost", False),
    ],
)
def test_which_hosts_are_its_own_follows_from_where_it_listens(settings: dict[str, Any], host: str, own: bool) -> None:
    assert Settings(repository=Path("models"), **settings).own_hosts.has(host) is own


@given(st.from_regex(r"([a-z0-9-]{1,9}\.){1,3}[a-z]{2,9}", fullmatch=True), st.sampled_from(["", ".", ":80", ".:8002"]))
def test_no_name_that_somebody_may_own_is_loopback(name: str, end: str) -> None:
    assert OwnHosts(frozenset()).has(name + end) is (name.endswith(".localhost"))
    assert OwnHosts(frozenset({name})).has(name.upper() + end)


@pytest.mark.parametrize(
    ("settings", "served"),
    [
        ({}, True),
        ({"http_address": Address("::1", 8002)}, True),
        ({"http_address": Address("localhost", 8002)}, True),
        ({"http_address": Address("0.0.0.0", 8002)}, False),
        ({"http_address": Address("0.0.0.0", 8002), "http_inference": "on"}, True),
        ({"http_inference": "off"}, False),
        ({"tls_certificate": Path("c"), "tls_private_key": Path("k")}, False),
        ({"tls_certificate": Path("c"), "tls_private_key": Path("k"), "http_inference": "on"}, True),
    ],
)
def test_inference_is_on_where_nobody_else_can_ask_or_it_is_asked_for(settings: dict[str, Any], served: bool) -> None:
    assert Settings(repository=Path("models"), **settings).serves_http_inference is served


def test_what_is_off_is_not_found(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, http_inference="off") as server:
        codes = [ask_http(server, path).code for path in ("/v2", "/v2/models/doubler", "/readyz", "/metrics")]
        assert codes == [404, 404, 200, 200]
        assert ask_http(server, "/v2/models/doubler/infer", b"{}").code == 404


def test_tls_is_that_of_grpc_and_inference_asks_for_the_clients_certificate(tmp_path: Path) -> None:
    def code(context: ssl.SSLContext, path: str) -> int:
        try:
            with urllib.request.urlopen(f"{url}{path}", timeout=20, context=context) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with mutual_tls(tmp_path) as served:
        url = f"{served.server.http_scheme}://{served.server.http_address}"
        assert url.startswith("https://")
        models = "/v2/models/doubler/ready"
        assert [code(served.trusting(), path) for path in ("/readyz", "/metrics", "/v2", models)] == [
            200,
            401,
            401,
            401,
        ]
        assert [code(served.known, path) for path in ("/readyz", "/metrics", "/v2", models)] == [200, 200, 200, 200]


def test_a_session_is_verified_each_time_and_never_taken_up_again(tmp_path: Path) -> None:
    """Else a client would be let in by an authority that was exchanged since."""
    with mutual_tls(tmp_path) as served:
        older = served.trusting()
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        session, reused = None, []
        for _ in range(2):
            with (
                socket.create_connection(("localhost", served.port), timeout=20) as plain,
                served.known.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
            ):
                connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 200"
                session = connection.session
                reused.append(connection.session_reused)
        with (
            socket.create_connection(("localhost", served.port), timeout=20) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),  # which keeps sessions
        ):
            older.wrap_socket(plain, server_hostname="localhost")
    assert reused == [False, False]


def test_older_tls_is_spoken_where_no_certificate_of_a_client_is_verified(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    authority = Authority(tmp_path, "authority")
    own = authority.issue("localhost", "DNS:localhost")
    older = ssl.create_default_context(cafile=authority.certificate)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        running_server(
            tmp_path / "models",
            http_inference="on",
            http_address=Address("localhost", 0),
            tls_certificate=own.certificate,
            tls_private_key=own.key,
        ) as server,
        urllib.request.urlopen(f"https://{server.http_address}/readyz", timeout=20, context=older) as answer,
    ):
        assert answer.status == 200


def test_a_key_that_is_none_stops_the_start(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    with (
        pytest.raises(StartError, match=r"TLS for HTTP cannot be set up from .*junk.pem"),
        running_server(tmp_path / "models", http_inference="on", tls_certificate=junk, tls_private_key=junk),
    ):
        pass


def refusals(server: Server) -> dict[tuple[str, ...], float]:
    """Counted outcomes of what no RPC is, by method, code and reason."""
    counted = server.metrics.outcomes.values().items()
    return {labels: count for labels, count in counted if labels[0] in ("/metrics", "/live", "http")}


@pytest.mark.parametrize("settings", [{}, {"http_inference": "off"}])
def test_without_tls_a_port_beside_mutual_tls_tells_health_alone(
    tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Probes of kubelets have no certificates, and need none; whoever else asks learns nothing of models."""
    onnx_models.save_doubler(tmp_path / "models")
    authority = Authority(tmp_path, "authority")
    own = authority.issue("localhost", "DNS:localhost")
    settings = settings | {
        "tls_certificate": own.certificate, "tls_private_key": own.key, "tls_client_ca": authority.certificate,
    }  # fmt: skip
    with running_server(tmp_path / "models", **settings) as server:
        assert server.http_scheme == "http"
        for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert ask_http(server, path).code == 200
        for path in ("/metrics", "/metrics?name[]=inferry_ready", "/metrics/", "/v2/models/doubler/ready", "/v2", "/"):
            refused = ask_http(server, path)
            assert (refused.code, b"doubler" in refused.body) == (401, False), path
            assert "setting http_inference on, or metrics_without_certificate" in refused.json["error"]
        assert refusals(server) == {
            ("/metrics", "UNAUTHENTICATED", "no_certificate"): 3, ("http", "UNAUTHENTICATED", "no_certificate"): 3,
        }  # fmt: skip
        server.readiness.report_fault("model doubler/1 computes wrong answers")
        not_ready = ask_http(server, "/readyz")
        assert (not_ready.code, b"doubler" in not_ready.body, not_ready.json["ready"]) == (503, False, False)
    assert "nobody can read /metrics" in caplog.text
    with running_server(tmp_path / "models", metrics_without_certificate=True, **settings) as server:
        assert b"inferry_ready 1.0" in ask_http(server, "/metrics").body
        assert ask_http(server, "/v2/models/doubler/ready").code == 401


def test_metrics_without_a_certificate_say_nothing_where_none_is_asked_for() -> None:
    with pytest.raises(StartError, match="metrics_without_certificate has no effect without tls_client_ca"):
        Settings(repository=Path("models"), metrics_without_certificate=True)


def test_what_the_guard_refuses_is_counted_by_what_was_asked_and_why(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    policy = save_policy(tmp_path / "policy.toml", 'metrics = "read"', batch=("infer",))
    with running_server(tmp_path / "models", access_policy=policy) as server:
        batch: dict[str, Any] = {"authorization": f"Bearer {token_of('batch')}"}
        asked: tuple[tuple[str, dict[str, Any]], ...] = (
            ("/metrics", {}),
            ("/metrics", batch),
            ("/live", {}),
            ("/live.json", batch),
            ("/v2", {"host": "example.org"}),
            ("/no/such/path", {"host": "example.org"}),
            ("/v2", {"origin": "https://example.org"}),
        )
        for path, headers in asked:
            assert ask_http(server, path, **headers).code in (401, 403, 421)
        assert refusals(server) == {
            ("/metrics", "UNAUTHENTICATED", "unauthenticated"): 1,
            ("/metrics", "PERMISSION_DENIED", "permission_denied"): 1,
            ("/live", "UNAUTHENTICATED", "unauthenticated"): 1,
            ("/live", "PERMISSION_DENIED", "permission_denied"): 1,
            ("http", "PERMISSION_DENIED", "foreign_host"): 2,
            ("http", "PERMISSION_DENIED", "foreign_origin"): 1,
        }
        received = server.metrics.received.values()
        assert sum(received[(method,)] for method in ("/metrics", "/live", "http")) == 7


def test_a_refused_infer_request_is_counted_once(tmp_path: Path) -> None:
    """Both ways into the port ask the guard."""
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        assert ask_http(server, "/v2/models/doubler/infer", b"{}", origin="https://example.org").code == 403
        assert refusals(server) == {("http", "PERMISSION_DENIED", "foreign_origin"): 1}


def test_handshakes_that_fail_are_counted_and_connections_that_only_vanish_are_not(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    authority, other = Authority(tmp_path, "authority"), Authority(tmp_path, "other")
    own, stranger = authority.issue("localhost", "DNS:localhost"), other.issue("stranger", "DNS:client")
    with running_server(
        tmp_path / "models", http_inference="on", http_address=Address("localhost", 0),
        tls_certificate=own.certificate, tls_private_key=own.key, tls_client_ca=authority.certificate,
    ) as server:  # fmt: skip
        assert server.http_address is not None
        where = ("localhost", server.http_address.port)

        def is_counted(handshakes: int) -> bool:
            return server.metrics.http_closures.values().get(("handshake",), 0.0) == handshakes

        strange = ssl.create_default_context(cafile=authority.certificate)
        strange.load_cert_chain(stranger.certificate, stranger.key)
        distrustful = ssl.create_default_context(cafile=other.certificate)
        for number, context in enumerate((strange, distrustful), 1):
            with (
                socket.create_connection(where, timeout=20) as plain,
                suppress(ssl.SSLError, ConnectionError),
                context.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert not connection.recv(1)  # the server verifies after the client's side of it is done
            wait_until(partial(is_counted, number), "the handshake to be counted")
        socket.create_connection(where, timeout=20).close()
        with socket.create_connection(where, timeout=20) as plain:
            plain.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            plain.recv(100)
        wait_until(lambda: is_counted(3), "what speaks no TLS to be counted")
        trusting = ssl.create_default_context(cafile=authority.certificate)
        with urllib.request.urlopen(f"https://{server.http_address}/readyz", timeout=20, context=trusting) as answer:
            assert answer.status == 200
        assert is_counted(3)
