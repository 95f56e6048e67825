"""A gRPC server on loopback that answers what a test tells it to."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE, Method

METHODS = IMAGE_CLASSIFIER | OPEN_INFERENCE


@dataclass
class Refusal(Exception):  # noqa: N818 - a script's word, no error of the program
    """Raised by a script to end a call with a status."""

    code: grpc.StatusCode
    details: str = ""
    pushback_ms: int | str | None = None


Script = Callable[[Any], Message]


@dataclass
class ScriptedServer:
    """Scripts by RPC name (`Classify`); an RPC without one is UNIMPLEMENTED. Records every request."""

    scripts: dict[str, Script]
    address: str = ""
    received: list[tuple[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def requests(self, name: str) -> list[Any]:
        """What came for an RPC, in order of arrival."""
        with self._lock:
            return [request for method, request in self.received if method == name]

    def answer(self, name: str, request: Message, context: grpc.ServicerContext) -> Message:
        with self._lock:
            self.received.append((name, request))
        try:
            return self.scripts[name](request)
        except KeyError:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} has no script")
        except Refusal as refusal:
            if refusal.pushback_ms is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(refusal.pushback_ms)),))
            context.abort(refusal.code, refusal.details)


@contextmanager
def serving(
    scripts: dict[str, Script],
    *,
    max_workers: int = 40,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
    add: Callable[[grpc.Server], object] = lambda _: None,
) -> Iterator[ScriptedServer]:
    """A scripted server on a free port of loopback, stopped at the end; `add` gives it other services."""
    scripted = ScriptedServer(dict(scripts))
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers), interceptors=list(interceptors), options=[("grpc.so_reuseport", 0)]
    )
    add(server)
    for service in {method.path.split("/")[1] for method in METHODS.values()}:
        handlers = {
            name: _handler(scripted, name, method)
            for name, method in METHODS.items()
            if method.path.split("/")[1] == service
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    scripted.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield scripted
    finally:
        server.stop(grace=None).wait()


# Quoted: generic in the stubs only.
def _handler(scripted: ScriptedServer, name: str, method: Method) -> "grpc.RpcMethodHandler[Any, Any]":
    return grpc.unary_unary_rpc_method_handler(
        lambda request, context: scripted.answer(name, request, context),
        request_deserializer=method.request_type.FromString,
        response_serializer=method.response_type.SerializeToString,
    )
