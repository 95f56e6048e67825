"""Locust users that speak gRPC. Import this from a locustfile only: importing Locust patches Python.

A locustfile of one's own is

    from inferry_client.load.user import ModelUser

    class MyUser(ModelUser):
        model = "mnist"
        images = "pictures/"

and runs with `locust --locustfile FILE --host HOST:PORT`.

grpcio blocks in C, where gevent's patches do not reach; its own gevent mode makes a blocking call
yield to the other users. (Measured: 32 calls to a server that takes 200 ms take 240 ms together.
Calls on gevent's thread pool without that mode never return.)
"""

import itertools
import os
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

import grpc
import grpc.experimental.gevent
from gevent import get_hub, sleep
from gevent.lock import RLock
from locust import User, constant, events, task

from inferry_client.client import Client
from inferry_client.connecting.channels import error_from_rpc, open_channel
from inferry_client.connecting.connection import Connection
from inferry_client.errors import InferryError
from inferry_client.load.answers import WrongAnswerError
from inferry_client.load.payloads import Payloads, choose_payloads
from inferry_client.load.sharing import place_of_user
from inferry_client.load.summary import outcome_name
from inferry_client.load.user_stream import UserStream

grpc.experimental.gevent.init_gevent()  # after Locust's patches, before the first channel

Reply = TypeVar("Reply")

_PAUSE_AFTER_FAILURE_S = 0.1  # a server that went away is not hammered with calls that fail at once


@events.init.add_listener  # type: ignore[untyped-decorator]
def set_clock(**_: Any) -> None:
    """Bring gevent's clock up to date: it stood still through the imports, which shortened the test by as much."""
    get_hub().loop.update_now()


class GrpcUser(User):  # type: ignore[misc]  # Locust is not followed: it may be absent
    """One client with a connection of its own; `host` is HOST:PORT, TLS comes from the environment.

    Nothing is retried: a test counts what a server refuses. What was refused (RESOURCE_EXHAUSTED)
    and what failed are reported under names of their own, so that the rate and the percentiles of
    a request are those of right answers.

    Attributes:
        timeout_s: of every request.
    """

    abstract = True
    timeout_s = 10.0
    _numbers = itertools.count()
    _processes = int(os.environ.get("INFERRY_LOAD_PROCESSES", "1"))

    def on_start(self) -> None:
        """Open the connection."""
        process = max(0, self.environment.runner.worker_index)  # -1: a master that does not tell
        place = place_of_user(next(self._numbers), process=process, processes=self._processes)
        self._bare = bare = Connection(self.host).bare_channel(place)
        self._channel = open_channel(bare.address, bare.settings, bare.credentials)

    def on_stop(self) -> None:
        """Close it."""
        self._channel.close()

    def send(self, name: str, path: str, payload: bytes, check: Callable[[bytes], object] = len) -> bytes:
        """Make one call and report it to Locust; an empty reply after a failure.

        Args:
            name: in the report (`ModelInfer mnist`).
            path: of the RPC.
            payload: the serialized request.
            check: raises InferryError where a reply is no answer.
        """
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)

        def ask() -> bytes:
            try:
                return method(payload, timeout=self.timeout_s, metadata=self._bare.metadata)
            except grpc.RpcError as error:
                asked = f"answer {name}"
                raise error_from_rpc(error, address=self.host, asked=asked, timeout_s=self.timeout_s) from error

        return self.measure(name, ask, check) or b""

    def measure(self, name: str, ask: Callable[[], Reply], check: Callable[[Reply], object] = id) -> Reply | None:
        """Time one request and report it to Locust; None after a failure.

        Args:
            name: in the report.
            ask: waits for the reply; InferryError where there is none.
            check: raises InferryError where a reply is no answer; it is not timed.
        """
        failure: InferryError | None = None
        reply: Reply | None = None
        started = time.monotonic()
        try:
            reply = ask()
        except InferryError as error:
            failure = error
        elapsed_s = time.monotonic() - started
        if reply is not None:
            try:
                check(reply)
            except InferryError as error:
                failure = error
        self.environment.events.request.fire(
            request_type="grpc",
            name=outcome_name(name, failure),
            response_time=elapsed_s * 1000,
            response_length=len(reply) if isinstance(reply, bytes) else 0,
            exception=failure,
            context={"sent": started},
        )
        if failure and not isinstance(failure, WrongAnswerError):
            sleep(_PAUSE_AFTER_FAILURE_S)
        return None if failure else reply


class ModelUser(GrpcUser):
    """Sends one request after the other to a model, each chosen at random from prepared ones.

    Attributes:
        model: its name; empty where the server has one model ready.
        version: a version or a label.
        images: a picture or a folder of pictures to send encoded; empty for random contents of the
            model's shape, as tensors.
        rows: pictures or rows of a request.
        stream: send the requests on one bidirectional stream of each user.
    """

    abstract = True
    wait_time = constant(0)
    model = ""
    version = ""
    images = ""
    rows = 1
    stream = False
    payloads: ClassVar[Payloads | None] = None
    _preparing: ClassVar[Any] = RLock()
    _stream: UserStream | None = None

    def on_start(self) -> None:
        """Open the connection; the first user of a process prepares the requests."""
        super().on_start()
        kind = type(self)
        with self._preparing:
            if kind.payloads is None:
                with Client(self.host) as client:
                    kind.payloads = choose_payloads(
                        client,
                        kind.model,
                        version=kind.version,
                        images=kind.images,
                        rows=kind.rows,
                        streamed=kind.stream,
                    )
        if kind.payloads.streamed:
            self._stream = UserStream(self._channel, self._bare, kind.payloads, timeout_s=self.timeout_s)

    def on_stop(self) -> None:
        """Close stream and connection."""
        if self._stream:
            self._stream.close()
        super().on_stop()

    @task  # type: ignore[untyped-decorator]  # Locust is not followed: it may be absent
    def ask(self) -> None:
        """One request."""
        payloads = self.payloads
        assert payloads is not None  # noqa: S101 - `on_start` came before
        number = random.randrange(len(payloads.requests))  # noqa: S311
        if self._stream:
            self.measure(payloads.name, partial(self._stream.ask, number), partial(self._stream.check, index=number))
        else:
            check = partial(payloads.expectation.read, number=number)
            self.send(payloads.name, payloads.unary_path, payloads.requests[number], check)
