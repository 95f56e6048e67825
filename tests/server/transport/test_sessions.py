"""How long a TLS session may be taken up again over gRPC: a client is not verified again then."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferry_server.rpc.router import Router
from inferry_server.settings.settings import TRANSPORTS
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import make_transport
from inferry_server.transport.tls import ServerTls
from testkit.certificates import Authority
from testkit.servers import ANY_PORT

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # and no settings


class Port:
    """A port with mutual TLS whose clock a test sets."""

    def __init__(self, folder: Path, transport: str) -> None:
        authority = Authority(folder, "authority")
        own, client = authority.issue("localhost", "DNS:localhost"), authority.issue("client", "DNS:client")
        self._authority, self._client = authority, client
        self.now = 0.0
        options = TransportOptions(
            max_message_bytes=1000, max_streams=10, certificate=own.certificate, private_key=own.key,
            client_ca=authority.certificate, watch=self._set_clock,
        )  # fmt: skip
        self._transport = make_transport(transport, Router(ServerMetrics()), options)
        self._address = self._transport.start(ANY_PORT)

    def _set_clock(self, tls: ServerTls) -> None:
        tls._clock = lambda: self.now
        tls._shown_until = tls._end_of_sessions()

    def context(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        """A client that keeps to one version."""
        context = ssl.create_default_context(cafile=self._authority.certificate)
        context.load_cert_chain(self._client.certificate, self._client.key)
        context.set_alpn_protocols(["h2"])
        context.minimum_version = context.maximum_version = version
        return context

    def connect(self, context: ssl.SSLContext, session: Any = None) -> tuple[bool, Any]:
        """Whether a session was taken up again, and the one that is to be had now."""
        with (
            socket.create_connection((self._address.host, self._address.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            connection.sendall(HELLO)
            assert connection.recv(9)[3] == 4  # its settings: behind a handshake that was taken
            return bool(connection.session_reused), connection.session

    def close(self) -> None:
        self._transport.stop(0.2)


@pytest.fixture(params=TRANSPORTS)
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Port]:
    it = Port(tmp_path, request.param)
    yield it
    it.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_not_taken_up_again_after_a_minute_however_often_it_was(
    port: Port, version: ssl.TLSVersion
) -> None:
    context = port.context(version)
    _, session = port.connect(context)
    port.now = 59.0
    _, session = port.connect(context, session)  # which may renew it
    port.now = 61.0
    reused, session = port.connect(context, session)
    assert not reused
    port.now = 122.0
    assert port.connect(context, session)[0] is False


def test_where_no_client_is_verified_sessions_last(tmp_path: Path) -> None:
    own = Authority(tmp_path, "authority").issue("localhost", "DNS:localhost")
    now = [0.0]
    tls = ServerTls(own.certificate, own.key, None, clock=lambda: now[0])
    now[0] = 1e9
    assert tls._fetch() is None
