"""A fake server for the tests of programs that use a model: real gRPC on loopback, answers by your functions.

    from inferry_client.testing import FakeModel, fake_server

    def test_my_program():
        mnist = FakeModel(labels=("even", "odd"), classify=lambda picture: [0.9, 0.1])
        with fake_server({"mnist": mnist}) as server:
            assert my_program(server.address) == "even"
            server.refuse("Classify", "RESOURCE_EXHAUSTED", times=2, pushback_ms=10)
            assert my_program(server.address) == "even"      # it asks again

Nothing is computed, batched or queued; `fake_server` speaks the same RPCs as an Inferry server.
`scripted_server` is what it is built on: a function for each RPC, on protocol messages.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from inferry_client.messages.replies import read_infer
from inferry_client.messages.streams import STREAMED, StreamedRpc
from inferry_client.messages.tensors import decode_tensor, encode_tensor, tensor_datatype
from inferry_client.results import Tensor, TensorSpec
from inferry_proto import classifier_pb2, open_inference_pb2
from inferry_proto.services import DIAGNOSTICS, IMAGE_CLASSIFIER, OPEN_INFERENCE, Method

__all__ = ["FakeModel", "Refusal", "ScriptedServer", "fake_server", "scripted_server"]

METHODS = IMAGE_CLASSIFIER | OPEN_INFERENCE | DIAGNOSTICS
_STREAMED = {  # by the name of the bidirectional RPC: its unary one, and how its replies look
    rpc.method.path.rpartition("/")[2]: (path.rpartition("/")[2], rpc) for path, rpc in STREAMED.items()
}
Script = Callable[[Any], Message]
PictureMessage = bytes | NDArray[np.uint8]


@dataclass
class Refusal(Exception):  # noqa: N818 - a script's word, no error of the program
    """Raised by a script, or by a function of a model, to end a call with a status.

    Attributes:
        code: of the status.
        details: its message.
        pushback_ms: when the caller shall ask again; None says nothing.
    """

    code: grpc.StatusCode
    details: str = ""
    pushback_ms: int | str | None = None


@dataclass
class ScriptedServer:
    """Scripts by RPC name (`Classify`); an RPC without one is UNIMPLEMENTED. Records every request.

    A stream's requests are answered by the unary RPC's script, and recorded as the stream's.

    Attributes:
        scripts: may be exchanged at any time.
        address: HOST:PORT.
        received: every request with its RPC, in order of arrival.
    """

    scripts: dict[str, Script]
    address: str = ""
    received: list[tuple[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def requests(self, name: str) -> list[Any]:
        """What came for an RPC, in order of arrival."""
        with self._lock:
            return [request for method, request in self.received if method == name]

    def refuse(
        self, name: str, code: str, details: str = "refused", *, times: int = 1, pushback_ms: int | None = None
    ) -> None:
        """End the next calls of an RPC with a status (`UNAVAILABLE`); those after them are answered as before."""
        answer, left = self.scripts[name], iter(range(times))
        refusal = Refusal(grpc.StatusCode[code], details, pushback_ms)

        def script(request: Any) -> Message:
            with self._lock:
                refuse = next(left, None) is not None
            if refuse:
                raise refusal
            return answer(request)

        self.scripts[name] = script

    def answer(self, name: str, request: Message, context: grpc.ServicerContext) -> Message:
        """What the script makes of a request."""
        with self._lock:
            self.received.append((name, request))
        return self._play(name, request, context)

    def answer_stream(self, name: str, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Message]:
        """What a script makes of each request of a stream.

        The script may be the bidirectional RPC's own, and what it raises ends the stream; or it is that of
        the unary RPC, and a refusal is answered in its place.
        """
        unary, rpc = _STREAMED[name]
        for request in requests:
            with self._lock:
                self.received.append((name, request))
            if name in self.scripts or unary not in self.scripts:
                yield self._play(name, request, context)
            else:
                yield self._answer_in_band(self.scripts[unary], rpc, request)

    def _answer_in_band(self, script: Script, rpc: StreamedRpc, request: Any) -> Message:
        reply: Any = rpc.method.response_type()
        answer: Any = getattr(reply, rpc.answer_field)
        try:
            answer.CopyFrom(script(request))
        except Refusal as refusal:
            answer.id = request.id
            reply.error_message = refusal.details or refusal.code.name
            if rpc.error_field == "error_code":
                reply.error_code = refusal.code.value[0]
            else:
                answer.parameters["error_code"].int64_param = refusal.code.value[0]
        return cast("Message", reply)

    def _play(self, name: str, request: Message, context: grpc.ServicerContext) -> Message:
        script = self.scripts.get(name)
        try:
            if script is not None:
                return script(request)
        except Refusal as refusal:
            if refusal.pushback_ms is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(refusal.pushback_ms)),))
            context.abort(refusal.code, refusal.details)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} has no script")
        raise AssertionError("unreachable: abort raises")


@dataclass(frozen=True)
class FakeModel:
    """A model that answers by functions.

    Attributes:
        labels: of its classes.
        classify: probabilities of one picture: an encoded file as bytes, or pixels `(H, W, C)`.
        infer: outputs of tensors, both by name; a row of each output for each row.
        inputs: what it says it takes.
        outputs: what it says it gives.
        version: that answers.
        max_batch_size: rows or pictures of a request; more are refused, as a server does.
    """

    labels: tuple[str, ...] = ()
    classify: Callable[[PictureMessage], Sequence[float]] | None = None
    infer: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    version: str = "1"
    max_batch_size: int = 256


@contextmanager
def fake_server(models: Mapping[str, FakeModel]) -> Iterator[ScriptedServer]:
    """A ready server of these models on a free port of loopback, stopped at the end."""
    with scripted_server(_Models(models).scripts()) as server:
        yield server


@contextmanager
def scripted_server(
    scripts: Mapping[str, Script],
    *,
    max_workers: int = 40,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
    add: Callable[[grpc.Server], object] = lambda _: None,
) -> Iterator[ScriptedServer]:
    """A server whose RPCs are functions, on a free port of loopback, stopped at the end.

    Args:
        scripts: by the RPC's name; each gets the request message and returns the reply.
        max_workers: calls at the same time.
        interceptors: gRPC's.
        add: gives the server other services.
    """
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
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(
            lambda requests, context: scripted.answer_stream(name, requests, context),
            request_deserializer=method.request_type.FromString,
            response_serializer=method.response_type.SerializeToString,
        )
    return grpc.unary_unary_rpc_method_handler(
        lambda request, context: scripted.answer(name, request, context),
        request_deserializer=method.request_type.FromString,
        response_serializer=method.response_type.SerializeToString,
    )


class _Models:
    """The scripts of a server with fake models."""

    def __init__(self, models: Mapping[str, FakeModel]) -> None:
        self._models = dict(models)

    def scripts(self) -> dict[str, Script]:
        return {
            "ServerLive": lambda _: open_inference_pb2.ServerLiveResponse(live=True),
            "ServerReady": lambda _: open_inference_pb2.ServerReadyResponse(ready=True),
            "ServerMetadata": lambda _: open_inference_pb2.ServerMetadataResponse(name="fake", version="0"),
            "ModelReady": lambda request: open_inference_pb2.ModelReadyResponse(ready=request.name in self._models),
            "ModelMetadata": self._metadata,
            "RepositoryIndex": self._index,
            "DescribeModel": self._describe,
            "Classify": self._classify,
            "ModelInfer": self._infer,
        }

    def _find(self, name: str, version: str) -> FakeModel:
        model = self._models.get(name)
        if model is None or version not in ("", model.version):
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"model {name!r} version {version!r} is not here")
        return model

    def _index(self, _: Any) -> Message:
        entry = open_inference_pb2.RepositoryIndexResponse.ModelIndex
        found = [entry(name=name, version=model.version, state="READY") for name, model in self._models.items()]
        return open_inference_pb2.RepositoryIndexResponse(models=found)

    def _metadata(self, request: Any) -> Message:
        model = self._find(request.name, request.version)
        reply = open_inference_pb2.ModelMetadataResponse(name=request.name, versions=[model.version])
        for specs, field_ in ((model.inputs, reply.inputs), (model.outputs, reply.outputs)):
            for spec in specs:
                field_.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return reply

    def _describe(self, request: Any) -> Message:
        model = self._find(request.model_name, request.model_version)
        reply = classifier_pb2.DescribeModelResponse(
            model_name=request.model_name,
            model_version=model.version,
            labels=model.labels,
            max_batch_size=model.max_batch_size,
        )
        for specs, field_ in ((model.inputs, reply.signature.inputs), (model.outputs, reply.signature.outputs)):
            for spec in specs:
                field_.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return reply

    def _classify(self, request: Any) -> Message:
        model = self._find(request.model_name, request.model_version)
        if model.classify is None:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"model {request.model_name!r} takes no pictures")
        _check_count(len(request.images), model, request.model_name)
        reply = classifier_pb2.ClassifyResponse(
            model_name=request.model_name, model_version=model.version, id=request.id
        )
        for image in request.images:
            probabilities = np.asarray(model.classify(_picture(image)), np.float64)
            result = reply.results.add()
            for index in np.argsort(-probabilities, kind="stable")[: max(1, request.top_k)]:
                if probabilities[index] >= request.min_probability:
                    label = model.labels[index] if index < len(model.labels) else ""
                    result.classifications.add(index=int(index), label=label, probability=float(probabilities[index]))
        return reply

    def _infer(self, request: Any) -> Message:
        model = self._find(request.model_name, request.model_version)
        if model.infer is None:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"model {request.model_name!r} takes no tensors")
        inputs = {
            tensor.name: decode_tensor(raw, tensor.datatype, tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        _check_count(max((len(array) for array in inputs.values() if array.ndim), default=0), model, request.model_name)
        reply = open_inference_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=model.version, id=request.id
        )
        wanted = {output.name for output in request.outputs}
        for name, output in model.infer(inputs).items():
            if not wanted or name in wanted:
                reply.outputs.add(name=name, datatype=tensor_datatype(output).name, shape=output.shape)
                reply.raw_output_contents.append(encode_tensor(output))
        read_infer(reply)  # what a client could not read is the test's mistake, and shows here
        return reply


def _check_count(count: int, model: FakeModel, name: str) -> None:
    if count > model.max_batch_size:
        raise Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"the request has {count} rows; model {name!r} takes up to {model.max_batch_size}",
        )


def _picture(image: classifier_pb2.Image) -> PictureMessage:
    if image.HasField("encoded"):
        return image.encoded
    shape = (image.pixels.height, image.pixels.width, image.pixels.channels)
    return np.frombuffer(image.pixels.data, np.uint8).reshape(shape)
