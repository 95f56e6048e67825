"""A client is answered only as long as its certificate holds, on connections that were opened before too."""

from pathlib import Path
from typing import Any

import grpc
import pytest

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


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_calls_are_refused_and_counted_once_the_clients_certificate_has_ended(tmp_path: Path, transport: str) -> None:
    authority = Authority(tmp_path, "authority")
    own, client = authority.issue("localhost", "DNS:localhost"), authority.issue("client", "DNS:client")
    now, metrics = [0.0], ServerMetrics()
    router = Router(metrics)
    router.add_unary({ECHO: lambda call, message: call.reply(message)})
    options = TransportOptions(
        max_message_bytes=1000, max_streams=10, certificate=own.certificate, private_key=own.key,
        client_ca=authority.certificate, client_certificates=ClientCertificates(lambda: now[0]),
    )  # fmt: skip
    serving = make_transport(transport, router, options)
    address = serving.start(ANY_PORT)
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
    )
    try:
        with grpc.secure_channel(f"localhost:{address.port}", credentials) as channel:
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
            assert stub(b"x", timeout=SOON_S) == b"x"
            now[0] = 1e11
            with pytest.raises(grpc.RpcError) as refused:
                stub(b"x", timeout=SOON_S)
            call: Any = refused.value
            assert call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "certificate has ended" in call.details()
    finally:
        serving.stop(0.2)
    labels = (ECHO, "UNAUTHENTICATED", "unauthenticated")
    wait_until(lambda: metrics.outcomes.values().get(labels) == 1, "the refusal to be counted")


def test_what_cannot_be_read_refuses_nobody_and_the_table_of_certificates_is_bounded() -> None:
    certificates = ClientCertificates(lambda: 0.0)
    for number in range(3000):
        certificates.check({"x509_pem_cert": [b"%d" % number]})
    certificates.check({})
    assert len(certificates._ends) <= 1024
