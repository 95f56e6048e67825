"""A client is answered only as long as its certificate holds, on connections that were opened before too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.experimental.session_cache import ssl_session_cache_lru

from inferry_server.rpc.router import Router
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.settings.settings import TRANSPORTS
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import make_transport
from testkit.certificates import Authority
from testkit.servers import ANY_PORT
from testkit.waiting import SOON_S, wait_until

ECHO = "/test/Echo"


class Serving:
    """A transport with mutual TLS, whose wall clock a test sets, and its client's credentials."""

    def __init__(self, folder: Path, transport: str) -> None:
        authority = Authority(folder, "authority")
        own, client = authority.issue("localhost", "DNS:localhost"), authority.issue("client", "DNS:client")
        self.now, self.metrics = 0.0, ServerMetrics()
        router = Router(self.metrics)
        router.add_unary({ECHO: lambda call, message: call.reply(message)})
        options = TransportOptions(
            max_message_bytes=1000, max_streams=10, certificate=own.certificate, private_key=own.key,
            client_ca=authority.certificate, client_certificates=ClientCertificates(lambda: self.now),
        )  # fmt: skip
        self.transport = make_transport(transport, router, options)
        self._port = self.transport.start(ANY_PORT).port
        self._credentials = grpc.ssl_channel_credentials(
            authority.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
        )

    def connect(self, *options: tuple[str, Any]) -> grpc.Channel:
        alone = ("grpc.use_local_subchannel_pool", 1)
        return grpc.secure_channel(f"localhost:{self._port}", self._credentials, options=[alone, *options])


@pytest.fixture(params=TRANSPORTS)
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    it = Serving(tmp_path, request.param)
    yield it
    it.transport.stop(0.2)


def outcome(channel: grpc.Channel) -> str:
    """The code of a call, and what is told."""
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
    future: Any = stub.future(b"x", timeout=SOON_S)
    future.exception(SOON_S)
    return f"{future.code().name} {future.details()}"


def test_calls_are_refused_and_counted_once_the_clients_certificate_has_ended(serving: Serving) -> None:
    with serving.connect() as channel:
        assert outcome(channel).startswith("OK")
        serving.now = 1e11
        assert outcome(channel).startswith("UNAUTHENTICATED the client's certificate has ended")
    labels = (ECHO, "UNAUTHENTICATED", "unauthenticated")
    wait_until(lambda: serving.metrics.outcomes.values().get(labels) == 1, "the refusal to be counted")


def test_a_session_that_is_taken_up_again_lets_nobody_in_whose_certificate_has_ended(serving: Serving) -> None:
    """gRPC does not verify the client again then."""
    sessions = ("grpc.ssl_session_cache", ssl_session_cache_lru(1))  # type: ignore[no-untyped-call]
    for now, expected in ((0.0, "OK"), (0.0, "OK"), (1e11, "UNAUTHENTICATED")):
        serving.now = now
        with serving.connect(sessions) as channel:
            assert outcome(channel).split()[0] == expected


def test_what_cannot_be_read_refuses_nobody_and_the_table_of_certificates_is_bounded() -> None:
    certificates = ClientCertificates(lambda: 0.0)
    for number in range(3000):
        certificates.check({"x509_pem_cert": [b"%d" % number]})
    certificates.check({})
    assert len(certificates._ends) <= 1024
