"""A caller has the roles of the certificate that it shows, whoever was at its address, and while the policy says so."""

import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.addresses import UnixAddress
from inferry_server.app import Server
from inferry_server.settings.settings import TRANSPORTS
from testkit import onnx_models
from testkit.certificates import Authority, Certificate
from testkit.rpc import infer_request
from testkit.servers import running_server
from testkit.waiting import SOON_S

READ, INFER, STREAM = (OPEN_INFERENCE[name].path for name in ("RepositoryIndex", "ModelInfer", "ModelStreamInfer"))
DOUBLE = infer_request("doubler", x=np.ones((1, 3), np.float32)).SerializeToString()
BY_SUBJECT = '[callers.by-subject]\nroles = ["read"]\ncertificates = ["subject:CN=ops"]\n'
BY_NAME = '[callers.by-name]\nroles = ["infer"]\ncertificates = ["DNS:shared.test"]\n'
MANY = [f"DNS:n{number}.test" for number in range(300)]


class Site:
    """A server beside mutual TLS that trusts two authorities, and its policy."""

    def __init__(self, folder: Path, transport: str, **settings: Any) -> None:
        (folder / "second").mkdir()
        self.first, self.second = Authority(folder, "authority"), Authority(folder / "second", "authority")
        self._own = self.first.issue("own", "DNS:localhost")
        both = folder / "both.pem"
        both.write_bytes(self.first.certificate.read_bytes() + self.second.certificate.read_bytes())
        self._policy = folder / "policy.toml"
        self._policy.write_text(BY_SUBJECT + BY_NAME)
        onnx_models.save_doubler(folder / "models")
        self._settings = {
            "transport": transport, "access_policy": self._policy, "tls_certificate": self._own.certificate,
            "tls_private_key": self._own.key, "tls_client_ca": both, **settings,
        }  # fmt: skip
        self._models = folder / "models"
        self.server: Server

    @contextmanager
    def running(self) -> Iterator["Site"]:
        with running_server(self._models, **self._settings) as self.server:
            yield self

    def obey(self, policy: str) -> None:
        self._policy.write_text(policy)
        for _ in range(2):
            self.server._watcher.look()

    def connect(self, client: Certificate, target: str | None = None) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(
            self.first.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
        )
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost"))
        return grpc.secure_channel(target or f"localhost:{self.port}", credentials, options=options)

    @property
    def port(self) -> int:
        address: Any = self.server.grpc_address
        return int(address.port)


@pytest.fixture
def site(tmp_path: Path, transport: str) -> Iterator[Site]:
    with Site(tmp_path, transport).running() as it:
        yield it


def code_of(channel: grpc.Channel, path: str) -> str:
    stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    future: Any = stub.future(DOUBLE if path == INFER else b"", timeout=SOON_S)
    future.exception(SOON_S)
    return str(future.code().name)


def codes_of(channel: grpc.Channel) -> tuple[str, str]:
    return code_of(channel, READ), code_of(channel, INFER)


OK, DENIED, NOBODY = "OK", "PERMISSION_DENIED", "UNAUTHENTICATED"


def test_roles_are_those_of_all_names_that_the_policy_knows_until_it_changes(site: Site) -> None:
    clients: list[tuple[Certificate, tuple[str, str]]] = [
        (site.first.issue("other", "DNS:shared.test"), (DENIED, OK)),
        (site.first.issue("many", *MANY, "DNS:shared.test"), (DENIED, OK)),
        (site.first.issue("OPS", *MANY), (NOBODY, NOBODY)),
        (site.first.issue("ops"), (OK, DENIED)),
        (site.second.issue("ops", "DNS:shared.test"), (OK, OK)),  # the same subject, of another authority
    ]
    with ExitStack() as opened:
        channels = [opened.enter_context(site.connect(client)) for client, _ in clients]
        for _ in range(2):
            assert [codes_of(channel) for channel in channels] == [expected for _, expected in clients]
        site.obey(BY_SUBJECT.replace("read", "infer"))
        changed = [(NOBODY, NOBODY)] * 3 + [(DENIED, OK)] * 2
        assert [codes_of(channel) for channel in channels] == changed


@pytest.mark.parametrize("listening", TRANSPORTS)
def test_over_a_unix_domain_socket_each_client_has_its_own_roles(tmp_path: Path, listening: str) -> None:
    """Peers have no addresses there."""
    target = f"unix:{tmp_path / 's'}"
    with ExitStack() as opened:
        address = UnixAddress("unix", str(tmp_path / "s"))
        site = opened.enter_context(Site(tmp_path, listening, grpc_address=address).running())
        ops = opened.enter_context(site.connect(site.first.issue("ops"), target))
        other = opened.enter_context(site.connect(site.first.issue("other", "DNS:shared.test"), target))
        for _ in range(2):
            assert (codes_of(ops), codes_of(other)) == ((OK, DENIED), (DENIED, OK))


@contextmanager
def relay(port: int, own_port: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """Leads one connection to a port of this machine, from a port of its own that is free again at once.

    Yields:
        Where to connect, and what tells that port.
    """
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        onward = opened.enter_context(socket.socket())
        onward.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        onward.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        onward.bind(("127.0.0.1", own_port))
        onward.connect(("127.0.0.1", port))
        taken: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()

        def lead(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(1 << 16):
                    sink.sendall(data)

        def take() -> None:
            with suppress(OSError):
                connection = listener.accept()[0]
                taken.put(connection)
                threading.Thread(target=lead, args=(onward, connection), daemon=True).start()
                lead(connection, onward)

        threading.Thread(target=take, daemon=True).start()
        yield f"localhost:{listener.getsockname()[1]}", lambda: int(onward.getsockname()[1])
        with suppress(OSError):
            onward.shutdown(socket.SHUT_RDWR)
        while not taken.empty():
            taken.get().close()


def test_whoever_gets_the_port_of_another_client_has_its_own_roles_and_not_those(site: Site) -> None:
    """By all that a connection is known by for a second, it is the same client: address, port, and name."""
    own_port = 0
    for name, expected in (("ops", (OK, OK)), ("other", (DENIED, OK)), ("ops", (OK, OK))):
        client = site.first.issue(name, "DNS:shared.test")
        with relay(site.port, own_port) as (target, port), site.connect(client, target) as channel:
            assert codes_of(channel) == expected
            own_port = port()


def test_streams_end_when_the_role_of_their_clients_certificates_is_taken_away_and_others_go_on(site: Site) -> None:
    with ExitStack() as opened:
        calls: dict[str, tuple[Any, queue.SimpleQueue[bytes | None]]] = {}
        for name in ("leaves", "stays"):
            channel = opened.enter_context(site.connect(site.first.issue(name, f"DNS:{name}.test")))
            calls[name] = asking(site, channel, name)
        site.obey(policy_of("stays"))
        call, requests = calls["leaves"]
        with pytest.raises(grpc.RpcError):
            next(call)
        requests.put(None)
        assert call.code().name == NOBODY
        call, requests = calls["stays"]
        requests.put(DOUBLE)
        assert next(call)
        requests.put(None)
        assert not list(call)


def policy_of(*names: str) -> str:
    return "".join(f'[callers.{name}]\nroles = ["infer"]\ncertificates = ["DNS:{name}.test"]\n' for name in names)


def asking(site: Site, channel: grpc.Channel, name: str) -> tuple[Any, "queue.SimpleQueue[bytes | None]"]:
    """A stream that has got its first reply, and where its further requests go."""
    site.obey(policy_of("leaves", "stays"))
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM)
    call: Any = stub(iter(requests.get, None), timeout=SOON_S)
    requests.put(DOUBLE)
    assert next(call), name
    return call, requests
