"""A client is answered only as long as its certificate holds, on connections that were opened before too."""

import queue
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.experimental.session_cache import ssl_session_cache_lru

from inferry_server.rpc.call import StreamCall
from inferry_server.rpc.router import Router
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.settings.settings import TRANSPORTS
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.selection import make_transport
from inferry_server.transport.tls import ServerTls
from testkit.certificates import Authority, Certificate
from testkit.servers import ANY_PORT
from testkit.waiting import SOON_S, wait_until

ECHO, ECHOES = "/test/Echo", "/test/Echoes"
ENDED, GONE = "UNAUTHENTICATED the client's certificate has ended", "UNAUTHENTICATED the authorities that are trusted"


class Echo:
    """The receiver of a stream that echoes."""

    def __init__(self, call: StreamCall) -> None:
        self.on_message = call.send
        self.on_half_close = self.on_drain = call.finish


class Serving:
    """A transport with mutual TLS, whose wall clock a test sets, and credentials of two clients.

    Attributes:
        first: from an authority of its own.
        second: from an authority that another one has issued, whose certificate it sends too.
        now: seconds since the epoch.
    """

    def __init__(self, folder: Path, transport: str) -> None:
        self._authority, root = Authority(folder, "authority"), Authority(folder, "root")
        between = Authority(folder, "between", root)
        self._own = self._authority.issue("localhost", "DNS:localhost")
        self.first = self._credentials(self._authority.issue("first", "DNS:first"))
        self.second = self._credentials(between.issue("second", "DNS:second"), between.certificate)
        self._authorities = {"first": self._authority.certificate, "second": root.certificate}
        both = folder / "both.pem"
        both.write_bytes(self._pem("first", "second"))
        self.now, self.metrics = 0.0, ServerMetrics()
        router = Router(self.metrics)
        router.add_unary({ECHO: lambda call, message: call.reply(message)})
        router.add_streams({ECHOES: Echo})
        self.certificates = ClientCertificates(lambda: self.now)
        self._tls: list[ServerTls] = []
        options = TransportOptions(
            max_message_bytes=1000, max_streams=10, certificate=self._own.certificate, private_key=self._own.key,
            client_ca=both, client_certificates=self.certificates, watch=self._tls.append,
        )  # fmt: skip
        self.transport = make_transport(transport, router, options)
        self.port = self.transport.start(ANY_PORT).port

    def connect(self, credentials: grpc.ChannelCredentials, *options: tuple[str, Any]) -> grpc.Channel:
        alone = ("grpc.use_local_subchannel_pool", 1)
        return grpc.secure_channel(f"localhost:{self.port}", credentials, options=[alone, *options])

    def trust(self, *names: str) -> None:
        """Have the authorities of these clients alone let clients in."""
        (tls,) = self._tls
        certificate, key, authorities = tls.paths
        tls.apply({certificate: tls.contents[certificate], key: tls.contents[key], authorities: self._pem(*names)})

    def counted(self, path: str, code: str, reason: str) -> float:
        return self.metrics.outcomes.values().get((path, code, reason), 0)

    def _pem(self, *names: str) -> bytes:
        return b"".join(self._authorities[name].read_bytes() for name in names)

    def _credentials(self, client: Certificate, *between: Path) -> grpc.ChannelCredentials:
        chain = b"".join(path.read_bytes() for path in (client.certificate, *between))
        return grpc.ssl_channel_credentials(self._authority.certificate.read_bytes(), client.key.read_bytes(), chain)


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


class Stream:
    """A stream that has got its first reply."""

    def __init__(self, serving: Serving, channel: grpc.Channel) -> None:
        self._serving = serving
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ECHOES)
        self._call: Any = stub(iter(self._requests.get, None), timeout=SOON_S)
        assert self.is_answered()

    def is_answered(self) -> bool:
        self._requests.put(b"x")
        return bool(next(self._call) == b"x")

    def end(self) -> str:
        """How the server ends it, while the client says nothing."""
        look = self._serving.transport.look
        wait_until(lambda: look() >= 0 and not self._call.is_active(), "the stream to end", look_again_s=0.05)
        self._requests.put(None)
        return f"{self._call.code().name} {self._call.details()}"

    def finish(self) -> str:
        self._requests.put(None)
        assert not list(self._call)
        return str(self._call.code().name)


def test_calls_are_refused_and_counted_once_the_clients_certificate_has_ended(serving: Serving) -> None:
    with serving.connect(serving.first) as channel:
        assert outcome(channel).startswith("OK")
        serving.now = 1e11
        assert outcome(channel).startswith(ENDED)
    labels = (ECHO, "UNAUTHENTICATED", "unauthenticated")
    wait_until(lambda: serving.counted(*labels) == 1, "the refusal to be counted")


def test_a_session_that_is_taken_up_again_lets_nobody_in_whose_certificate_has_ended(serving: Serving) -> None:
    """gRPC does not verify the client again then."""
    sessions = ("grpc.ssl_session_cache", ssl_session_cache_lru(1))  # type: ignore[no-untyped-call]
    for now, expected in ((0.0, "OK"), (0.0, "OK"), (1e11, "UNAUTHENTICATED")):
        serving.now = now
        with serving.connect(serving.first, sessions) as channel:
            assert outcome(channel).split()[0] == expected


def test_a_stream_ends_and_is_counted_once_the_clients_certificate_has_ended(serving: Serving) -> None:
    with serving.connect(serving.first) as channel:
        stream = Stream(serving, channel)
        serving.now = 1e11
        assert stream.end().startswith(ENDED)
    labels = (ECHOES, "UNAUTHENTICATED", "unauthenticated")
    wait_until(lambda: serving.counted(*labels) == 1, "its end to be counted")
    assert not serving.certificates.is_due()


def test_a_unary_call_whose_request_comes_only_after_the_certificate_has_ended_is_not_answered(
    serving: Serving,
) -> None:
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with serving.connect(serving.first) as channel:
        stub: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(ECHO)
        call: Any = stub.future(iter(requests.get, None), timeout=SOON_S)
        wait_until(lambda: serving.metrics.received.values().get((ECHO,)) == 1, "the call to have come")
        serving.now = 1e11
        look = serving.transport.look
        wait_until(lambda: look() >= 0 and not serving.certificates.is_due(), "a review", look_again_s=0.05)
        requests.put(b"x")
        requests.put(None)
        call.exception(SOON_S)
        assert f"{call.code().name} {call.details()}".startswith(ENDED)


def test_calls_and_streams_of_an_authority_that_is_gone_end_and_those_of_others_go_on(serving: Serving) -> None:
    sessions = ("grpc.ssl_session_cache", ssl_session_cache_lru(1))  # type: ignore[no-untyped-call]
    with serving.connect(serving.first, sessions) as gone, serving.connect(serving.second) as kept:
        streams = [Stream(serving, channel) for channel in (gone, kept)]
        assert [outcome(channel).split()[0] for channel in (gone, kept)] == ["OK", "OK"]
        serving.trust("second")
        assert outcome(gone).startswith(GONE)
        assert outcome(kept).startswith("OK")
        assert streams[0].end().startswith(GONE)
        assert streams[1].is_answered()
        assert streams[1].finish() == "OK"
        wait_until(lambda: serving.counted(ECHOES, "UNAUTHENTICATED", "unauthenticated") == 1, "its end to be counted")
        serving.trust("first", "second")
        assert outcome(gone).startswith("OK")  # it is trusted again
        serving.trust("second")
        with serving.connect(serving.first, sessions) as again:
            assert outcome(again).split()[0] == "UNAVAILABLE"  # a session is not taken up either


def test_a_connection_that_had_a_call_is_told_from_one_that_came_to_nothing(serving: Serving) -> None:
    def told(stage: str) -> float | None:
        return serving.metrics.registry.get_sample_value("inferry_tls_connections_total", {"stage": stage})

    trusted = serving._authority.certificate.read_bytes()
    with serving.connect(grpc.ssl_channel_credentials(trusted)) as refused:  # it has no certificate
        assert outcome(refused).split()[0] == "UNAVAILABLE"
    with socket.create_connection(("localhost", serving.port), timeout=SOON_S) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert not plain.recv(1)
    with serving.connect(serving.first) as channel:
        assert [outcome(channel).split()[0] for _ in range(3)] == ["OK"] * 3
    serving.transport.look()
    accepted, used = told("accepted"), told("used")
    assert used == 1
    assert accepted is not None
    assert accepted >= 3  # a client that is refused may try again
    serving.transport.look()
    assert (told("accepted"), told("used")) == (accepted, used)
