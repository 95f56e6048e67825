"""Callers over gRPC and HTTP who look at every answer and never ask twice."""

import http.client
import json
import random
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from chaos.account import LATE, Account
from chaos.models import MODEL, draw_picture, is_right
from inferry_proto.open_inference_pb2 import ModelInferResponse
from inferry_server.addresses import Address
from testkit.callers import Callers, own_channel
from testkit.certificates import Certificate
from testkit.rpc import infer_request

INFER = "/inference.GRPCInferenceService/ModelInfer"
_PAUSE_S = 0.01  # between requests of a caller: traffic, not a load test
_PAUSE_AFTER_FAILURE_S = 0.1  # whoever starts anew needs the cores
_OPTIONS = (
    # A caller comes back at once: what is measured is when the server answers, not how long gRPC's clients hesitate.
    ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 300),
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How callers reach the server.

    Attributes:
        grpc_port: its port.
        http_port: its other port.
        authorities: PEM of those whose certificates callers accept; None: without TLS.
        token: asked before every request; empty: none is sent.
        identity: asked for the caller's own certificate before every connection; None: it shows none.
        deadline_s: of every request.
    """

    grpc_port: Address
    http_port: Address
    authorities: bytes | None = None
    token: Callable[[], str] = lambda: ""
    identity: Callable[[], Certificate | None] = lambda: None
    deadline_s: float = 5.0

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        where = f"localhost:{self.grpc_port.port}"
        return own_channel(where, self.authorities, identity=self.identity(), options=_OPTIONS)

    def connection(self) -> http.client.HTTPConnection:
        """An HTTP connection of its own."""
        if self.authorities is None:
            return http.client.HTTPConnection("localhost", self.http_port.port, timeout=self.deadline_s)
        context = ssl.create_default_context(cadata=self.authorities.decode())
        if (identity := self.identity()) is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        return http.client.HTTPSConnection("localhost", self.http_port.port, timeout=self.deadline_s, context=context)

    def headers(self) -> dict[str, str]:
        """That go with a request."""
        token = self.token()
        return {"authorization": f"Bearer {token}"} if token else {}


Asker = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class NoAnswerError(Exception):
    """What came instead of an answer."""


@contextmanager
def over_grpc(way: Way) -> Iterator[Asker]:
    """Asks over one connection that stays, as long as the caller has the same certificate."""
    with ExitStack() as connections:
        shown: Certificate | None = None
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] | None = None

        def ask(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
            nonlocal shown, infer
            if infer is None or way.identity() is not shown:
                connections.close()
                shown = way.identity()
                channel = connections.enter_context(way.channel())
                infer = channel.unary_unary(INFER)
            request = infer_request(MODEL, images=picture).SerializeToString()
            metadata = tuple(way.headers().items())
            try:
                reply = infer(request, timeout=way.deadline_s, metadata=metadata)
            except grpc.RpcError as error:
                raise NoAnswerError(outcome_of(error)) from error
            return np.frombuffer(ModelInferResponse.FromString(reply).raw_output_contents[0], np.float32)

        yield ask


@contextmanager
def over_new_channels(way: Way) -> Iterator[Asker]:
    """Asks over gRPC, each time over a connection of its own."""

    def ask(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        with over_grpc(way) as once:
            return once(picture)

    yield ask


@contextmanager
def over_http(way: Way) -> Iterator[Asker]:
    """Asks over HTTP, each time over a connection of its own."""

    def ask(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        tensor = {"name": "images", "datatype": "UINT8", "shape": list(picture.shape), "data": picture.ravel().tolist()}
        connection = way.connection()
        try:
            connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps({"inputs": [tensor]}), way.headers())
            answer = connection.getresponse()
            body = answer.read()
        except TimeoutError as error:
            raise NoAnswerError(LATE) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(type(error).__name__) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise NoAnswerError(f"HTTP {answer.status}")
        return np.array(json.loads(body)["outputs"][0]["data"], np.float32)

    yield ask


CALLERS = (over_grpc, over_grpc, over_grpc, over_new_channels, over_http, over_http)


def outcome_of(call: Any) -> str:
    """The status's name, of an error or of a call that ended; that the client gave up is not what a server says."""
    if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED and call.details() == "Deadline Exceeded":
        return LATE
    return str(call.code().name)


class Traffic(Callers):
    """Callers of every kind; what becomes of their requests is counted in the account of the moment."""

    def __init__(self, way: Way) -> None:
        super().__init__(len(CALLERS))
        self._way = way
        self._account = Account()
        self._right_since = [0.0] * len(CALLERS)  # when the latest request that was answered was sent

    def exchange(self) -> Account:
        """Count in a new account from now on; a request stays in that in which it was sent."""
        self._account = Account()
        return self._account

    def all_answered_since(self, moment: float) -> bool:
        """Whether every caller got a right answer to a request that it sent later."""
        return min(self._right_since) > moment

    def call(self, number: int) -> None:
        """Ask about one picture after the other."""
        rng = random.Random(number)
        with CALLERS[number](self._way) as ask:
            while self.goes_on(_PAUSE_S):
                self._ask_once(ask, draw_picture(rng), number)

    def _ask_once(self, ask: Asker, picture: NDArray[np.uint8], number: int) -> None:
        account, began = self._account, time.monotonic()
        account.send()
        try:
            right = is_right(picture, ask(picture))
        except NoAnswerError as error:
            account.fail(str(error))
            self.goes_on(_PAUSE_AFTER_FAILURE_S)
            return
        account.end(right=right)
        if right:
            self._right_since[number] = began
