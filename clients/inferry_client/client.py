"""The synchronous client."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from numpy.typing import NDArray

from inferry_client import requests
from inferry_client.channels import ChannelSettings, error_from_rpc, open_channel
from inferry_client.errors import error_from_closing, error_from_reply
from inferry_client.limits import check_seconds
from inferry_client.requests import Call, Picture
from inferry_client.results import (
    ClassifyResult,
    InferResult,
    ModelDescription,
    ModelMetadata,
    ModelStatus,
    ServerMetadata,
)
from inferry_client.retries import DEFAULT_RETRIES, RetryPolicy
from inferry_proto.services import Method

Result = TypeVar("Result")


class Client:
    """A connection to one server.

    Any thread may call any method, also at the same time. A call blocks until its answer, its
    error or `timeout_s`, whichever is first; retries happen inside that time. It connects at the
    first call and again by itself whenever the connection is lost. `close` ends calls under way, and
    every later one, with RequestCancelledError.

    Every method raises InferryError or one of its kinds, and nothing of gRPC's.

    Args:
        address: HOST:PORT.
        timeout_s: of every call; up to a day.
        retries: what to do while the server is away (UNAVAILABLE, and CANCELLED where it stops) or
            full (RESOURCE_EXHAUSTED); a server's own wish when to come back is heeded.
        connect_timeout_s: how long one attempt to connect may take.
        max_message_bytes: both ways; -1 leaves the limit to the server.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 10.0,
        retries: RetryPolicy = DEFAULT_RETRIES,
        connect_timeout_s: float = 2.0,
        max_message_bytes: int = -1,
    ) -> None:
        check_seconds("timeout_s", timeout_s)
        self.address = address
        self.timeout_s = timeout_s
        self._channel = open_channel(address, ChannelSettings(retries, connect_timeout_s, max_message_bytes))
        self._closed = False
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[Any, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; calls still under way are cancelled."""
        self._closed = True
        self._channel.close()

    def classify(self, model: str, images: Sequence[Picture], *, version: str = "", top_k: int = 1) -> ClassifyResult:
        """The labels of pictures; see `requests.classify` for what they may be."""
        return self.run(requests.classify(model, images, version=version, top_k=top_k))

    def infer(
        self, model: str, inputs: Mapping[str, NDArray[Any]], *, version: str = "", outputs: Sequence[str] = ()
    ) -> InferResult:
        """A model's outputs for tensors; see `requests.infer`."""
        return self.run(requests.infer(model, inputs, version=version, outputs=outputs))

    def describe_model(self, model: str, *, version: str = "") -> ModelDescription:
        """What a model takes and gives: tensors, labels, preprocessing."""
        return self.run(requests.describe_model(model, version=version))

    def model_metadata(self, model: str, *, version: str = "") -> ModelMetadata:
        """A model as the Open Inference Protocol describes it."""
        return self.run(requests.model_metadata(model, version=version))

    def model_ready(self, model: str, *, version: str = "") -> bool:
        """Whether a model (one version, or any) can answer now."""
        return self.run(requests.model_ready(model, version=version))

    def repository_index(self, *, ready_only: bool = False) -> tuple[ModelStatus, ...]:
        """Every version in the server's repository, with its state."""
        return self.run(requests.repository_index(ready_only=ready_only))

    def server_metadata(self) -> ServerMetadata:
        """The server's name, version and extensions."""
        return self.run(requests.server_metadata())

    def server_live(self) -> bool:
        """Whether the process answers."""
        return self.run(requests.server_live())

    def server_ready(self) -> bool:
        """Whether requests for models are welcome."""
        return self.run(requests.server_ready())

    def run(self, call: Call[Result]) -> Result:
        """Make a call that `requests` built and read its reply."""
        try:
            reply = self._open_method(call.method)(call.request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            raise error_from_rpc(
                error, address=self.address, asked=call.asked, timeout_s=self.timeout_s, closed=self._closed
            ) from error
        except ValueError as error:
            if not self._closed:
                raise
            raise error_from_closing(address=self.address, asked=call.asked) from error
        try:
            return call.read(reply)
        except ValueError as error:
            raise error_from_reply(str(error), address=self.address, asked=call.asked) from error

    def _open_method(self, method: Method) -> "grpc.UnaryUnaryMultiCallable[Any, Any]":
        known = self._methods.get(method.path)
        if known is None:
            known = self._methods[method.path] = self._channel.unary_unary(
                method.path,
                request_serializer=method.request_type.SerializeToString,
                response_deserializer=method.response_type.FromString,
            )
        return known
