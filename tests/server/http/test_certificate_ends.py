"""The ends of clients' certificates, and of the authorities that issued them: what the HTTP port does then."""

import http.client
import math
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from inferry_server.addresses import Address
from inferry_server.http import protocol
from inferry_server.http.guard import Guard
from inferry_server.security.certificate_dates import earliest_end
from inferry_server.security.client_certificates import end_of_peer
from inferry_server.security.hosts import OwnHosts
from inferry_server.security.watching import read_files
from testkit import onnx_models
from testkit.certificates import Authority
from testkit.mutual_tls import mutual_tls
from testkit.servers import running_server


@pytest.mark.parametrize(("state", "is_refused"), [
    ({}, True),
    ({"has_certificate": True, "certificate_end": 0.0}, True),
    ({"has_certificate": True, "certificate_end": math.inf}, False),
])  # fmt: skip
def test_a_certificate_that_has_ended_is_none(state: dict[str, Any], is_refused: bool) -> None:
    guard = Guard(_nobody, needs_certificate="a certificate", open_metrics=False, hosts=OwnHosts())
    for path in ("/v2", "/metrics", "/live"):
        refused = guard.refuses(path, [(b"host", b"localhost")], state)
        assert (refused is not None) is is_refused
    assert guard.refuses("/readyz", [], state) is None
    assert guard.tells_reasons({"state": state}) is not is_refused


async def _nobody(*_: Any) -> None:
    """The application behind a guard that is only asked."""


def test_a_connection_ends_with_the_certificate_of_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mutual_tls(tmp_path) as served:
        monkeypatch.setattr(protocol, "end_of_peer", lambda certificate: 0.0 if certificate else math.inf)
        with (
            socket.create_connection(("localhost", served.port), timeout=20) as plain,
            served.known.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            assert connection.recv(1) == b""
        assert served.server.metrics.http_closures.values() == {("expired",): 1}


def test_a_connection_ends_when_the_authority_of_its_client_is_gone_and_others_go_on(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    own, both = first.issue("localhost", "DNS:localhost"), tmp_path / "both.pem"
    both.write_bytes(first.certificate.read_bytes() + second.certificate.read_bytes())
    context = ssl.create_default_context(cafile=first.certificate)
    client = first.issue("client", "DNS:client")
    with running_server(
        tmp_path / "models", http_inference="on", http_address=Address("localhost", 0),
        tls_certificate=own.certificate, tls_private_key=own.key, tls_client_ca=both,
    ) as server, ExitStack() as stack:  # fmt: skip
        assert server.http_address is not None
        opened = []
        for shows in (False, True):
            if shows:
                context.load_cert_chain(client.certificate, client.key)
            plain = stack.enter_context(socket.create_connection(("localhost", server.http_address.port), timeout=20))
            opened.append(stack.enter_context(context.wrap_socket(plain, server_hostname="localhost")))
        nameless, shown = opened
        assert status_on(shown) == 200
        files = (own.certificate, own.key, both)
        server._http.apply_tls(read_files(files))  # the same
        server._http.apply_tls({**read_files(files), both: second.certificate.read_bytes()})
        assert shown.recv(1) == b""
        assert status_on(nameless, "/livez") == 200
        assert server.metrics.http_closures.values() == {("expired",): 1}


def status_on(connection: ssl.SSLSocket, path: str = "/v2") -> int:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def test_the_end_of_a_certificate_is_read_as_it_is_written(tmp_path: Path) -> None:
    certificate = Authority(tmp_path, "authority").certificate
    decoded = ssl._ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined]  # what `getpeercert` tells
    assert end_of_peer(decoded) == earliest_end(certificate.read_bytes())
    assert end_of_peer(None) == end_of_peer({}) == math.inf
