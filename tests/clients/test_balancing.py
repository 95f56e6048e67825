"""Channels to several servers heed the servers' load reports."""

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc

from inferry_client.connecting.channels import service_config
from inferry_server.telemetry.load_report import KEY
from testkit.waiting import wait_until

_METHOD = "/inference.GRPCInferenceService/ServerLive"
_RENEWED_MS = 1_000  # each connection; a tenth more or less
_CALLS = 40
_RPS, _UTILIZATION = 6, 9  # fields of a report


@contextmanager
def _reporting(name: bytes, capacity: float) -> Iterator[str]:
    """The address of a server that replies its name, reports so many requests a second, and ends connections."""
    report = b"".join(
        struct.pack("<Bd", field << 3 | 1, value) for field, value in ((_RPS, capacity), (_UTILIZATION, 1))
    )

    def reply(_: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(((KEY, report),))
        return name

    class Handler(grpc.GenericRpcHandler):
        def service(self, _: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            return grpc.unary_unary_rpc_method_handler(reply)

    with ThreadPoolExecutor(1) as pool:
        options = [("grpc.max_connection_age_ms", _RENEWED_MS)]
        server = grpc.server(pool, handlers=[Handler()], options=options)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def test_a_replica_of_a_quarter_of_the_capacity_gets_fewer_calls_though_connections_are_renewed() -> None:
    """Without it, gRPC's ten seconds begin anew with each connection."""
    with ExitStack() as stack:
        addresses = [stack.enter_context(_reporting(b"large", 400)), stack.enter_context(_reporting(b"small", 100))]
        options = [("grpc.service_config", service_config(health=False, spread=True)), ("grpc.enable_http_proxy", 0)]
        channel = stack.enter_context(grpc.insecure_channel(f"ipv4:{','.join(addresses)}", options=options))
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)

        def shared_by_capacity() -> bool:
            replies = [call(b"", timeout=20, wait_for_ready=True) for _ in range(_CALLS)]
            return _CALLS * 0.7 <= replies.count(b"large") < _CALLS

        wait_until(shared_by_capacity, "four fifths of the calls at the replica with the capacity", look_again_s=0.05)
