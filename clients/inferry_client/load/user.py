"""A Locust user that speaks gRPC. Import it from a locustfile only: importing Locust patches Python.

grpcio blocks in C, where gevent's patches do not reach; its own gevent mode makes a blocking call
yield to the other users. (Measured: 32 calls to a server that takes 200 ms take 240 ms together.
Calls on gevent's thread pool without that mode never return.)
"""

import time

import grpc
import grpc.experimental.gevent
from gevent import sleep
from locust import User

from inferry_client.channels import ChannelSettings, error_from_rpc, open_channel

grpc.experimental.gevent.init_gevent()  # after Locust's patches, before the first channel

_PAUSE_AFTER_FAILURE_S = 0.1  # a server that went away is not hammered with calls that fail at once


class GrpcUser(User):  # type: ignore[misc]  # Locust is not followed: it may be absent
    """One client with a connection of its own; `host` is HOST:PORT.

    Nothing is retried: a test counts what a server refuses.

    Attributes:
        timeout_s: of every request.
    """

    abstract = True
    timeout_s = 10.0

    def on_start(self) -> None:
        """Open the connection."""
        self._channel = open_channel(self.host, ChannelSettings(resend=False, own_connection=True))

    def on_stop(self) -> None:
        """Close it."""
        self._channel.close()

    def send(self, name: str, path: str, payload: bytes) -> bytes:
        """Make one call and report it to Locust; an empty reply after a failure.

        Args:
            name: in the report (`ModelInfer mnist`).
            path: of the RPC.
            payload: the serialized request.
        """
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        failure, reply = None, b""
        started = time.perf_counter()
        try:
            reply = method(payload, timeout=self.timeout_s)
        except grpc.RpcError as error:
            failure = error_from_rpc(error, address=self.host, asked=f"answer {name}", timeout_s=self.timeout_s)
        self.environment.events.request.fire(
            request_type="grpc",
            name=name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=len(reply),
            exception=failure,
            context={},
        )
        if failure:
            sleep(_PAUSE_AFTER_FAILURE_S)
        return reply
