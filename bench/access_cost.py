"""What an access policy and mutual TLS cost a request: `PYTHONPATH=tests:. python -m bench.access_cost`."""

import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.rpc.router import Router
from inferry_server.security.access import Access
from inferry_server.security.policy import parse_policy
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.completion_queue import CompletionQueueTransport
from inferry_server.transport.core_layer import CoreServer, auth_context
from inferry_server.transport.options import TransportOptions
from testkit.call_counter import CallCounter
from testkit.certificates import Authority
from testkit.policies import save_policy, token_of

_CALLERS, _CHECKS, _ROUNDS, _SOON_S, _LONGEST_S = 50, 10_000, 25, 10.0, 300.0
_PATH = OPEN_INFERENCE["ModelInfer"].path
_BY_CERTIFICATE = '[callers.by-certificate]\nroles = ["infer"]\ncertificates = ["DNS:client.test"]\n'


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = save_policy(folder / "policy.toml", **{f"caller{n}": ("infer",) for n in range(_CALLERS)})
        text = policy.read_bytes() + _BY_CERTIFICATE.encode()
        router = Router(ServerMetrics(), access=Access(parse_policy(text)))
        with _a_call(folder, router) as (transport, event):
            _measure(transport, event)


def _measure(transport: CompletionQueueTransport, event: Any) -> None:
    certificates, access = transport._certificates, transport._access
    assert certificates is not None
    assert access is not None

    def token() -> bool:
        return transport._unread_calls.refuse_caller(event, _PATH, access)

    def certificate() -> bool:
        return transport._unread_calls.refuse_connection(event, _PATH, certificates)

    def read() -> None:
        certificates.check(auth_context(event.call))

    assert not token()
    assert not certificate()
    own = CallCounter().count(lambda: None)
    counts = [CallCounter().count(check) - own for check in (token, certificate)]
    print(f"a request's token is checked in {_time(token):.2f} us, {counts[0]} calls, with {_CALLERS} callers")
    print(f"its client's certificate in {_time(certificate):.2f} us more, {counts[1]} calls")
    print(f"once a second for each connection, reading the certificate takes {_time(read):.2f} us more")
    event.invocation_metadata = event.invocation_metadata[:1]
    assert not token()
    count = CallCounter().count(token) - own
    print(f"a caller's role by its certificate, without a token, is checked in {_time(token):.2f} us, {count} calls")


def _time(check: Callable[[], object]) -> float:
    """Microseconds of CPU in the quickest round: what else runs on the machine does not count."""
    check_s, nothing_s = (
        min(timeit.repeat(what, number=_CHECKS, repeat=_ROUNDS, timer=time.process_time)) / _CHECKS
        for what in (check, lambda: None)
    )
    return (check_s - nothing_s) * 1e6


class _Event:
    """A call that has come, without its events: what the checks read of it."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.invocation_metadata = (
            ("user-agent", "grpc-python/1.85.1"),
            ("authorization", f"Bearer {token_of('caller7')}"),
        )


@contextmanager
def _a_call(folder: Path, router: Router) -> Iterator[tuple[CompletionQueueTransport, _Event]]:
    """A call over mutual TLS, and a transport that never starts."""
    authority = Authority(folder, "authority")
    own, client = authority.issue("localhost", "DNS:localhost"), authority.issue("client", "DNS:client.test")
    options = TransportOptions(
        max_message_bytes=1000, max_streams=10, certificate=own.certificate, private_key=own.key,
        client_ca=authority.certificate,
    )  # fmt: skip
    tls = options.open_tls()
    assert tls is not None
    server = CoreServer(options.arguments())
    port = server.listen("127.0.0.1:0", tls.credentials())
    server.start()
    server.request_call("called")  # type: ignore[arg-type]  # it is only compared here
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
    )
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PATH)
        future = stub.future(b"x", timeout=_LONGEST_S)  # without its future the call would be taken back
        event = server.poll(time.time() + _SOON_S)
        if event.tag != "called":
            raise TimeoutError("no call came")
        try:
            yield CompletionQueueTransport(router, options), _Event(event.call)
        finally:
            future.cancel()
            server.shutdown("stopped")  # type: ignore[arg-type]  # as above
            server.cancel_all_calls()
            while server.poll(time.time() + _SOON_S).tag not in ("stopped", None):
                pass


if __name__ == "__main__":
    main()
