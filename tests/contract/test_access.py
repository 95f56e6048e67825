"""Who may do what, asked over both gRPC transports and over HTTP: the same answers, and all of them counted."""

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np
import pytest

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE
from inferry_server.app import Server
from inferry_server.errors import StartError
from inferry_server.security.roles import OPEN_METHODS
from inferry_server.settings.settings import Settings
from testkit import onnx_models
from testkit.certificates import Authority
from testkit.clock import ManualClock
from testkit.http_client import ask_http
from testkit.played_http import played_http
from testkit.policies import save_policy, token_of
from testkit.rpc import infer_request
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until

METHODS = {name: method for methods in (OPEN_INFERENCE, IMAGE_CLASSIFIER) for name, method in methods.items()}
DOUBLE = infer_request("doubler", x=np.ones((1, 3), np.float32))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("access")
    onnx_models.save_doubler(root / "models")
    policy = save_policy(
        root / "policy.toml", 'metrics = "read"', batch=("infer",), viewer=("read",), operator=("admin",)
    )
    with running_server(root / "models", transport=transport, access_policy=policy, model_control="explicit") as it:
        yield it


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.grpc_address)) as opened:
        yield opened


def code_of(channel: grpc.Channel, name: str, message: bytes = b"", *, token: str | None = None) -> str:
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHODS[name].path)
    call: Any = stub(iter([message]), timeout=SOON_S, metadata=metadata)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        assert token is None or token not in call.details()
    return str(call.code().name)


def counted(server: Server, method: str, reason: str) -> float:
    samples = (sample for family in server.metrics.outcomes.collect() for sample in family.samples)
    labels = {"method": METHODS[method].path, "reason": reason}
    return sum(s.value for s in samples if s.name.endswith("_total") and labels.items() <= s.labels.items())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_whoever_shows_nothing_gets_health_and_nothing_else(server: Server, channel: grpc.Channel, name: str) -> None:
    before = counted(server, name, "unauthenticated")
    code = code_of(channel, name)
    if METHODS[name].path in OPEN_METHODS:
        assert code != "UNAUTHENTICATED"
    else:
        assert code == "UNAUTHENTICATED"
        assert code_of(channel, name, token=token_of("nobody")) == "UNAUTHENTICATED"
        wait_until(lambda: counted(server, name, "unauthenticated") == before + 2, "both refusals to be counted")


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("ModelInfer", {"batch"}),
        ("ModelStreamInfer", {"batch"}),
        ("RepositoryIndex", {"viewer"}),
        ("TraceSetting", {"operator"}),
    ],
)
def test_a_caller_without_the_role_is_denied_and_counted(
    server: Server, channel: grpc.Channel, name: str, roles: set[str]
) -> None:
    message = DOUBLE.SerializeToString() if "Infer" in name else b""
    before = counted(server, name, "permission_denied")
    codes = {
        caller: code_of(channel, name, message, token=token_of(caller)) for caller in ("batch", "viewer", "operator")
    }
    assert {caller for caller, code in codes.items() if code == "OK"} == roles
    assert {code for caller, code in codes.items() if caller not in roles} == {"PERMISSION_DENIED"}
    wait_until(lambda: counted(server, name, "permission_denied") == before + 2, "the refusals to be counted")


def test_a_refused_call_changes_nothing_however_often_it_is_sent(server: Server, channel: grpc.Channel) -> None:
    unload = pb.RepositoryModelUnloadRequest(model_name="doubler").SerializeToString()
    codes = {code_of(channel, "RepositoryModelUnload", unload, token=token_of("batch")) for _ in range(5)}
    assert codes == {"PERMISSION_DENIED"}
    assert code_of(channel, "ModelInfer", DOUBLE.SerializeToString(), token=token_of("batch")) == "OK"


def test_a_refused_request_is_not_read(server: Server, channel: grpc.Channel) -> None:
    """One that never comes whole is refused too."""
    stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHODS["ModelInfer"].path)
    call: Any = stub(iter(()), timeout=SOON_S)
    assert call.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("path", "body", "caller", "code"),
    [
        ("/v2/health/live", None, None, 200),
        ("/readyz", None, None, 200),
        ("/v2", None, None, 401),
        ("/v2", None, "revoked", 401),
        ("/v2", None, "batch", 403),
        ("/v2", None, "viewer", 200),
        ("/v2/repository/models/doubler/unload", b"{}", "viewer", 403),
        ("/v2/repository/models/doubler/unload", b"{", None, 401),
        ("/v2/models/doubler/infer", b"{", "batch", 400),
        ("/v2/models/doubler/infer", b"{", None, 401),
        ("/v2/models/doubler/infer", b"{", "operator", 403),
        ("/metrics", None, None, 401),
        ("/metrics", None, "batch", 403),
        ("/metrics", None, "viewer", 200),
    ],
)
def test_http_decides_as_grpc_does(
    server: Server, path: str, body: bytes | None, caller: str | None, code: int
) -> None:
    headers = {} if caller is None else {"authorization": f"Bearer {token_of(caller)}"}
    answer = ask_http(server, path, body, **headers)
    assert answer.code == code, answer.body
    assert caller is None or token_of(caller) not in answer.body.decode()


def test_a_policy_that_changes_is_obeyed_without_a_restart(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    path = save_policy(tmp_path / "policy.toml", old=("infer",))
    with (
        running_server(tmp_path / "models", transport=transport, access_policy=path) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        assert code_of(channel, "ModelInfer", DOUBLE.SerializeToString(), token=token_of("old")) == "OK"
        save_policy(path, new=("infer",))
        for _ in range(2):
            server._watcher.look()
        codes = [code_of(channel, "ModelInfer", DOUBLE.SerializeToString(), token=token_of(c)) for c in ("old", "new")]
        assert codes == ["UNAUTHENTICATED", "OK"]
        path.write_text("callers = 1")
        for _ in range(2):
            server._watcher.look()
        assert code_of(channel, "ModelInfer", DOUBLE.SerializeToString(), token=token_of("new")) == "OK"


def test_a_body_that_ends_only_after_its_token_was_revoked_is_nobodys(tmp_path: Path) -> None:
    """Bodies may take minutes."""
    onnx_models.save_doubler(tmp_path / "models")
    path = save_policy(tmp_path / "policy.toml", old=("admin",))
    with running_server(tmp_path / "models", access_policy=path, model_control="explicit") as server:
        assert server.http_address is not None
        connection = http.client.HTTPConnection(server.http_address.host, server.http_address.port, timeout=SOON_S)
        connection.putrequest("POST", "/v2/repository/models/doubler/unload")
        for name, value in (("authorization", f"Bearer {token_of('old')}"), ("content-length", "2")):
            connection.putheader(name, value)
        connection.endheaders(b"{")
        unload = METHODS["RepositoryModelUnload"].path
        wait_until(lambda: server.metrics.received.values().get((unload,)) == 1, "the request to have been let in")
        save_policy(path, new=("admin",))
        for _ in range(2):
            server._watcher.look()
        connection.send(b"}")
        assert connection.getresponse().status == 401
        assert counted(server, "RepositoryModelUnload", "unauthenticated") == 1
        assert server.registry.served()


@pytest.mark.parametrize("chunked", [False, True], ids=["direct", "through the application"])
def test_an_infer_request_whose_body_ends_only_after_its_token_was_revoked_is_refused(
    tmp_path: Path, *, chunked: bool
) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    path = save_policy(tmp_path / "policy.toml", old=("infer",), kept=("infer",))
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    body = json.dumps({"inputs": [tensor]}).encode()
    framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(body))}
    with running_server(tmp_path / "models", access_policy=path) as server, ExitStack() as opened:
        sent = {}
        for caller in ("old", "kept"):
            assert server.http_address is not None
            connection = http.client.HTTPConnection(server.http_address.host, server.http_address.port, timeout=SOON_S)
            opened.callback(connection.close)
            connection.putrequest("POST", "/v2/models/doubler/infer")
            for name, value in {"authorization": f"Bearer {token_of(caller)}", **framing}.items():
                connection.putheader(name, value)
            connection.endheaders(b"%x\r\n%b" % (len(body), body[:9]) if chunked else body[:9])
            sent[caller] = connection
        infer = METHODS["ModelInfer"].path
        wait_until(lambda: server.metrics.received.values().get((infer,)) == 2, "the requests to have been let in")
        save_policy(path, kept=("infer",))
        for _ in range(2):
            server._watcher.look()
        for connection in sent.values():
            connection.send(body[9:] + b"\r\n0\r\n\r\n" * chunked)
        assert {caller: one.getresponse().status for caller, one in sent.items()} == {"old": 401, "kept": 200}
        assert counted(server, "ModelInfer", "unauthenticated") == 1


def test_an_infer_request_whose_body_ends_only_after_its_token_has_expired_is_refused(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    path = save_policy(tmp_path / "policy.toml", brief=("infer",))
    expires = datetime.now(UTC) + timedelta(hours=1)
    path.write_text(path.read_text() + f"expires = {expires:%Y-%m-%dT%H:%M:%SZ}\n")
    whole = b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'
    lines = f"Authorization: Bearer {token_of('brief')}\r\nContent-Length: {len(whole)}\r\n\r\n"
    begin = f"POST /v2/models/doubler/infer HTTP/1.1\r\nHost: localhost\r\n{lines}".encode()
    with running_server(tmp_path / "models", access_policy=path) as server, played_http(server, 1) as played:
        clock = ManualClock()
        (connection,), (transport,) = played.connections, played.transports
        connection.loop = mock.Mock(time=clock)

        def ask(*, ahead_s: float) -> None:
            connection.data_received(begin)
            clock.advance(1.0)
            with mock.patch.object(played.direct._router.access, "_wall_clock", return_value=time.time() + ahead_s):
                connection.data_received(whole)
                connection.loop.call_soon.call_args.args[0]()

        ask(ahead_s=0.0)
        wait_until(lambda: bool(played.direct._replies), "the reply, which the batcher's thread makes")
        played.direct._reply_to_all()
        ask(ahead_s=7200.0)
    assert [reply[:12] for reply in transport.written] == [b"HTTP/1.1 200", b"HTTP/1.1 401"]


def test_a_clients_certificate_gives_it_its_roles_over_grpc_and_http(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    authority = Authority(tmp_path, "authority")
    own, ops, other, six = (
        authority.issue(name, f"DNS:{name}.test", "DNS:localhost", "IP:127.0.0.1", *more)
        for name, *more in (("own",), ("ops",), ("other", "IP:2001:db8::8"), ("six", "IP:2001:db8:0:0:0:0:0:A0"))
    )
    policy = tmp_path / "policy.toml"
    policy.write_text('[callers.ops]\nroles = ["read"]\ncertificates = ["DNS:ops.test", "IP:2001:0DB8::00a0"]\n')
    settings: dict[str, Any] = {
        "transport": transport, "access_policy": policy, "tls_certificate": own.certificate,
        "tls_private_key": own.key, "tls_client_ca": authority.certificate, "http_inference": "on",
    }  # fmt: skip
    with running_server(tmp_path / "models", **settings) as server:
        for client, code, http_code in ((ops, "OK", 200), (six, "OK", 200), (other, "UNAUTHENTICATED", 401)):
            credentials = grpc.ssl_channel_credentials(
                authority.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
            )
            with grpc.secure_channel(f"localhost:{server.grpc_address.port}", credentials) as channel:  # type: ignore[union-attr]
                assert code_of(channel, "RepositoryIndex") == code
            assert https_code(server, authority, client, "/v2") == http_code


def der_name(kind: int, name: bytes) -> str:
    """A certificate's alternatives as openssl is given them byte by byte: one name."""
    inner = bytes([kind, len(name)]) + name
    return "DER:" + ":".join(f"{byte:02X}" for byte in bytes([0x30, len(inner)]) + inner)


def test_a_name_that_is_cut_short_or_read_in_two_ways_gives_no_role_over_grpc_or_http(
    tmp_path: Path, transport: str
) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    authority = Authority(tmp_path, "authority")
    own = authority.issue("own", "DNS:localhost", "IP:127.0.0.1")
    clients = [
        authority.issue("zero", der_name(0x82, b"ops.test\0.of.somebody.test")),
        authority.issue("uri", der_name(0x86, b"spiffe://prod/ops\0/x")),
        authority.issue("utf8", der_name(0x82, "é.test".encode())),
        authority.issue("latin1", der_name(0x82, "é.test".encode("latin-1"))),
    ]
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[callers.ops]\nroles = ["read"]\ncertificates = ["DNS:ops.test", "URI:spiffe://prod/ops", "DNS:é.test", '
        '"DNS:ops.test\\u0000.of.somebody.test"]\n'
    )
    settings: dict[str, Any] = {
        "transport": transport, "access_policy": policy, "tls_certificate": own.certificate,
        "tls_private_key": own.key, "tls_client_ca": authority.certificate, "http_inference": "on",
    }  # fmt: skip
    with running_server(tmp_path / "models", **settings) as server:
        for client in clients:
            credentials = grpc.ssl_channel_credentials(
                authority.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
            )
            with grpc.secure_channel(f"localhost:{server.grpc_address.port}", credentials) as channel:  # type: ignore[union-attr]
                assert code_of(channel, "RepositoryIndex") == "UNAUTHENTICATED"
            assert https_code(server, authority, client, "/v2") == 401
            assert https_code(server, authority, client, "/livez") == 200


def https_code(server: Server, authority: Authority, client: Any, path: str) -> int:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(client.certificate, client.key)
    assert server.http_address is not None
    connection = http.client.HTTPSConnection("localhost", server.http_address.port, context=context, timeout=SOON_S)
    connection.request("GET", path)
    return connection.getresponse().status


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "setting access_policy: .* cannot be read"),
        ("roles = 1", "access policy: the file has 'roles'"),
        ('[callers.x]\nroles = ["read"]\ncertificates = ["CN:x"]', "no effect without setting tls_client_ca"),
    ],
)
def test_a_policy_that_cannot_be_obeyed_stops_the_start(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "policy.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StartError, match=message):
        Server(Settings(repository=tmp_path, access_policy=path, provider="cpu"))
