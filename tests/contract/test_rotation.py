"""Certificates, keys and client authorities are exchanged while requests come: none fails, the old ones end."""

import http.client
import queue
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.app import Server
from inferry_server.security.certificate_dates import earliest_end
from testkit import onnx_models
from testkit.certificates import Authority, Certificate
from testkit.rpc import begin, infer_request
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until

INFER = OPEN_INFERENCE["ModelInfer"].path
STREAM = OPEN_INFERENCE["ModelStreamInfer"].path
DOUBLE = infer_request("doubler", x=np.ones((1, 3), np.float32))
ROUNDS = 20


@dataclass(frozen=True)
class Issued:
    """An authority, the server's certificate from it, and a client's."""

    authority: Authority
    server: Certificate
    client: Certificate

    def credentials(self, client: Certificate | None = None) -> grpc.ChannelCredentials:
        client = client or self.client
        return grpc.ssl_channel_credentials(
            self.authority.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
        )


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> tuple[Issued, Issued]:
    made = []
    for name in ("old", "new"):
        folder = tmp_path_factory.mktemp(name)
        authority = Authority(folder, name)
        names = ("DNS:localhost", "IP:127.0.0.1")
        made.append(Issued(authority, authority.issue("server", *names), authority.issue("client", *names)))
    return made[0], made[1]


@pytest.fixture
def files(tmp_path: Path, issued: tuple[Issued, Issued]) -> Path:
    put(tmp_path, issued[0])
    return tmp_path


def put(folder: Path, issued: Issued, *others: Issued) -> None:
    """The files of a server, one after the other, as an operator copies them; clients of others are let in too."""
    shutil.copy(issued.server.certificate, folder / "tls.crt")
    shutil.copy(issued.server.key, folder / "tls.key")
    authorities = b"".join(one.authority.certificate.read_bytes() for one in (issued, *others))
    (folder / "ca.crt").write_bytes(authorities)


def obey(server: Server) -> None:
    """A look sees a change, the next one obeys it."""
    for _ in range(2):
        server._watcher.look()


@pytest.fixture
def server(files: Path, transport: str) -> Iterator[Server]:
    onnx_models.save_doubler(files / "models")
    settings: dict[str, Any] = {
        "tls_certificate": files / "tls.crt", "tls_private_key": files / "tls.key", "tls_client_ca": files / "ca.crt",
    }  # fmt: skip
    with running_server(files / "models", transport=transport, http_inference="on", **settings) as it:
        yield it


def open_channel(server: Server, credentials: grpc.ChannelCredentials) -> grpc.Channel:
    address: Any = server.grpc_address
    alone = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own, and so a handshake
    return grpc.secure_channel(f"localhost:{address.port}", credentials, options=alone)


def code(server: Server, credentials: grpc.ChannelCredentials) -> str:
    with open_channel(server, credentials) as channel:
        return code_on(channel)


def code_on(channel: grpc.Channel) -> str:
    future = begin(channel, "ModelInfer", DOUBLE)
    future.exception(SOON_S)
    return str(future.code().name)


def https_code(server: Server, issued: Issued, path: str = "/v2") -> int | str:
    context = ssl.create_default_context(cafile=str(issued.authority.certificate))
    context.load_cert_chain(issued.client.certificate, issued.client.key)
    assert server.http_address is not None
    connection = http.client.HTTPSConnection("localhost", server.http_address.port, context=context, timeout=SOON_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (ssl.SSLError, ConnectionError) as error:
        return type(error).__name__
    finally:
        connection.close()


def test_a_rotation_fails_no_request_and_ends_what_was_before(
    server: Server, files: Path, issued: tuple[Issued, Issued]
) -> None:
    old, new = issued
    with open_channel(server, old.credentials()) as kept:
        codes = []
        for round_number in range(ROUNDS):
            if round_number == ROUNDS // 2:
                put(files, new, old)  # its clients have time to get certificates of the new authority
            server._watcher.look()
            codes.append(begin(kept, "ModelInfer", DOUBLE).exception(SOON_S))
            shown = new if round_number > ROUNDS // 2 else old  # a look sees the change, the next one obeys it
            codes.append(None if code(server, shown.credentials()) == "OK" else f"round {round_number}")
        assert codes == [None] * len(codes)
        with open_channel(server, new.credentials()) as renewed:
            assert code_on(renewed) == "OK"
            requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            stub: grpc.StreamStreamMultiCallable[bytes, bytes] = kept.stream_stream(STREAM)
            stream: Any = stub(iter(requests.get, None), timeout=SOON_S)
            requests.put(DOUBLE.SerializeToString())
            assert next(stream)
            put(files, new)
            obey(server)
            with pytest.raises(grpc.RpcError):
                next(stream)
            requests.put(None)
            assert stream.code() is grpc.StatusCode.UNAUTHENTICATED
            assert [code_on(channel) for channel in (kept, renewed)] == ["UNAUTHENTICATED", "OK"]
    labels = (INFER, "UNAUTHENTICATED", "unauthenticated")
    wait_until(lambda: server.metrics.outcomes.values().get(labels) == 1, "the refusal to be counted")
    assert code(server, old.credentials()) == "UNAVAILABLE"
    assert code(server, new.credentials(old.client)) == "UNAVAILABLE"  # of an authority that is gone
    assert [https_code(server, one) for one in (old, new)] == ["SSLCertVerificationError", 200]
    end = server.metrics.registry.get_sample_value("inferry_tls_not_after_timestamp_seconds", {"file": "certificate"})
    assert end == earliest_end(new.server.certificate.read_bytes())


def test_a_key_that_is_not_the_certificates_changes_nothing_until_it_is(
    server: Server, files: Path, issued: tuple[Issued, Issued]
) -> None:
    old, new = issued
    shutil.copy(new.server.certificate, files / "tls.crt")
    for _ in range(3):
        server._watcher.look()
    assert code(server, old.credentials()) == "OK"
    assert https_code(server, old) == 200
    put(files, new)
    obey(server)
    assert code(server, new.credentials()) == "OK"
    assert https_code(server, new) == 200


def test_a_clients_certificate_that_has_expired_is_refused_over_grpc_and_http(
    server: Server, issued: tuple[Issued, Issued]
) -> None:
    valid = issued[0]
    expired = replace(valid, client=valid.authority.issue("expired", "DNS:client.test", days=-1))
    assert code(server, expired.credentials()) == "UNAVAILABLE"
    assert isinstance(https_code(server, expired), str)  # an alert, or a reset: the handshake ends after the client's
    assert (code(server, valid.credentials()), https_code(server, valid)) == ("OK", 200)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_nothing_older_than_tls_1_2_is_spoken(
    server: Server, issued: tuple[Issued, Issued], version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=str(issued[0].authority.certificate))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(issued[0].client.certificate, issued[0].client.key)
    context.minimum_version = context.maximum_version = version
    for address in (server.grpc_address, server.http_address):
        where: Any = address
        with socket.create_connection((where.host, where.port), timeout=SOON_S) as plain, pytest.raises(OSError):  # noqa: PT011 - a reset, or an alert
            context.wrap_socket(plain, server_hostname="localhost")
