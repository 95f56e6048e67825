"""Requests built from what callers have. Each is a `Call`: all that a transport needs to know."""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeAlias, TypedDict, TypeVar, Unpack

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from inferry_client.errors import InvalidRequestError
from inferry_client.limits import MAX_TOP_K, check_seconds
from inferry_client.messages import replies
from inferry_client.messages.pictures import Picture, Pictures, as_sequence, read_picture
from inferry_client.messages.tensors import encode_tensor, tensor_datatype
from inferry_client.results import (
    ClassifyResult,
    ExplainedVersion,
    InferResult,
    ModelDescription,
    ModelMetadata,
    ModelStatistics,
    ModelStatus,
    ServerMetadata,
)
from inferry_proto import classifier_pb2, diagnostics_pb2, open_inference_pb2
from inferry_proto.services import DIAGNOSTICS, IMAGE_CLASSIFIER, OPEN_INFERENCE, Method

__all__ = ["Call", "CallOptions", "Picture", "Pieces"]

Result = TypeVar("Result")
Tensors: TypeAlias = Mapping[str, NDArray[Any]]
Parameter: TypeAlias = bool | int | float | str

_MODEL_INFER = OPEN_INFERENCE["ModelInfer"]
_MAX_INT64 = 2**63 - 1
_METADATA_KEY = re.compile(r"[0-9a-z_.-]+")


class CallOptions(TypedDict, total=False):
    """What every call may be given.

    Attributes:
        timeout_s: of this call, retries included; the client's where it is left out.
        metadata: what travels beside the request, as gRPC's keys and values.
        traceparent: the W3C trace context that the server's spans belong to.
    """

    timeout_s: float
    metadata: Mapping[str, str | bytes]
    traceparent: str


@dataclass(frozen=True)
class Pieces(Generic[Result]):
    """How a request is cut into smaller ones where a server takes fewer rows a request.

    Attributes:
        model: its name.
        version: as asked for.
        count: rows or pictures of the request.
        cut: the call of some of them (start, stop, version).
        join: one result out of those of the parts, in order.
    """

    model: str
    version: str
    count: int
    cut: "Callable[[int, int, str], Call[Result]]"
    join: Callable[[Sequence[Result]], Result]


@dataclass(slots=True)
class Joint:
    """How a request is joined with those of other callers.

    Attributes:
        key: requests with the same one may travel together.
        rows: of this one.
        payload: what it carries.
        merge: the call of several payloads, in order, with its timeout.
        part: the result of some rows (start, stop) out of a joined one.
    """

    key: Hashable
    rows: int
    payload: Any
    merge: "Callable[[Sequence[Any], float], Call[Any]]"
    part: Callable[[Any, int, int], Any]


@dataclass(slots=True)  # not frozen, which would cost every call a microsecond; nobody changes one
class Call(Generic[Result]):
    """One RPC to be made, on whatever transport.

    Attributes:
        method: where it is called.
        message: what is sent, or what builds it when it is first asked for: a call that travels
            with others never needs its own.
        read: turns the reply message into the result; ValueError: it breaks the protocol.
        asked: what the caller wants, for messages (`describe model 'mnist'`).
        timeout_s: None for the client's.
        metadata: keys and values beside the request.
        pieces: how to cut it; None where it is one row, or cannot be cut.
        joint: how to join it with others; None where it must travel alone.
        control: a question about the server itself, which is asked whether or not it is ready.
        model: that is asked, and its version as asked for; where calls are joined.
    """

    method: Method
    message: Message | Callable[[], Message]
    read: Callable[[Any], Result]
    asked: str
    timeout_s: float | None = None
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    pieces: Pieces[Result] | None = None
    joint: Callable[[], Joint] | None = None
    control: bool = False
    model: tuple[str, str] = ("", "")

    @property
    def request(self) -> Message:
        """What is sent.

        Raises:
            InvalidRequestError: it holds what the protocol cannot carry.
        """
        if not isinstance(self.message, Message):
            self.message = self.message()
        return self.message


def classify(
    model: str,
    images: Pictures,
    *,
    version: str = "",
    top_k: int = 1,
    min_probability: float = 0.0,
    request_id: str = "",
    **options: Unpack[CallOptions],
) -> Call[ClassifyResult]:
    """The labels of one picture or several.

    Args:
        model: its name.
        images: a picture or a sequence of them: a path, an encoded file (JPEG, PNG, WebP, BMP) as
            bytes, a PIL image, or uint8 `(H, W, C)` or `(H, W)`; an array `(N, H, W, C)` is N
            pictures. More than the server takes in a request are sent in several.
        version: a version or a label; empty for the newest that is ready.
        top_k: labels a picture.
        min_probability: only labels at least this probable, 0 to 1; a picture may then have none.
        request_id: comes back in the result, and is in errors.
        options: see `CallOptions`.

    Raises:
        InvalidRequestError: nothing that is a picture, none at all, or a number out of its range.
    """
    pictures = as_sequence(images)
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidRequestError(f"top_k is {top_k}; expected 1 to {MAX_TOP_K}")
    if not 0 <= min_probability <= 1:
        raise InvalidRequestError(f"min_probability is {min_probability}; expected 0 to 1")
    messages = [read_picture(position, picture) for position, picture in enumerate(pictures)]
    request = partial(_classify_request, model=model, top_k=top_k, min_probability=min_probability, id=request_id)
    return _classify_call(messages, version, request, _read_options(options))


def infer(
    model: str,
    inputs: Tensors,
    *,
    version: str = "",
    outputs: Sequence[str] = (),
    request_id: str = "",
    priority: int = 0,
    parameters: Mapping[str, Parameter] | None = None,
    **options: Unpack[CallOptions],
) -> Call[InferResult]:
    """A model's outputs for tensors.

    Args:
        model: its name.
        inputs: every input by name; all `(N, ...)` where the model takes batches. More rows than
            the server takes in a request are sent in several.
        version: a version or a label; empty for the newest that is ready.
        outputs: the names of those wanted; empty for all.
        request_id: comes back in the result, and is in errors.
        priority: the protocol's; 0 leaves it to the server.
        parameters: the protocol's request parameters, by name.
        options: see `CallOptions`.

    Raises:
        InvalidRequestError: an array or a parameter that the protocol cannot carry.
    """
    message = partial(_infer_request, model, inputs, version, outputs, request_id, priority, parameters)
    timeout_s, metadata = _read_options(options) if options else (None, ())
    asked = f"run {_name_model(model, version)}"
    rows = _common_rows(inputs, model)
    joint = None
    if not (request_id or parameters or metadata or rows < 1):
        joint = partial(_infer_joint, model, inputs, version, tuple(outputs), priority, rows)
    call = Call(
        _MODEL_INFER, message, replies.read_infer, asked, timeout_s, metadata, None, joint, model=(model, version)
    )
    if rows <= 1:
        return call

    def cut(start: int, stop: int, version: str) -> Call[InferResult]:
        part = {name: array[start:stop] for name, array in inputs.items()}
        return infer(
            model, part, version=version, outputs=outputs, request_id=request_id, priority=priority,
            parameters=parameters, **options,
        )  # fmt: skip

    join = partial(replies.join_infer, rows=rows)
    return replace(call, pieces=Pieces(model, version, rows, cut, join))


DEFAULT_WINDOW = 16
"""Requests of a stream under way: enough for a server to form batches."""


def request_of(model: str, item: Any, settings: Mapping[str, Any]) -> Call[Any]:
    """The call of one item of a stream: tensors by name, else pictures."""
    return infer(model, item, **settings) if isinstance(item, Mapping) else classify(model, item, **settings)


def describe_model(model: str, *, version: str = "", **options: Unpack[CallOptions]) -> Call[ModelDescription]:
    """What a model takes and gives: tensors, labels, preprocessing."""
    request = classifier_pb2.DescribeModelRequest(model_name=model, model_version=version)
    asked = f"describe {_name_model(model, version)}"
    method = IMAGE_CLASSIFIER["DescribeModel"]
    return Call(method, request, replies.read_description, asked, *_read_options(options), control=True)


def model_metadata(model: str, *, version: str = "", **options: Unpack[CallOptions]) -> Call[ModelMetadata]:
    """A model as the Open Inference Protocol describes it: tensors and versions."""
    request = open_inference_pb2.ModelMetadataRequest(name=model, version=version)
    asked = f"describe {_name_model(model, version)}"
    method = OPEN_INFERENCE["ModelMetadata"]
    return Call(method, request, replies.read_model_metadata, asked, *_read_options(options), control=True)


def model_limit(model: str, *, version: str = "", **options: Unpack[CallOptions]) -> Call[int]:
    """The most rows a request for a model may carry; 0 where it takes no batches."""
    request = open_inference_pb2.ModelConfigRequest(name=model, version=version)
    asked = f"say what {_name_model(model, version)} takes"
    method = OPEN_INFERENCE["ModelConfig"]
    return Call(method, request, replies.read_limit, asked, *_read_options(options), control=True)


def model_ready(model: str, *, version: str = "", **options: Unpack[CallOptions]) -> Call[bool]:
    """Whether a model (one version, or any) can answer now."""
    request = open_inference_pb2.ModelReadyRequest(name=model, version=version)
    asked = f"say whether {_name_model(model, version)} is ready"
    method = OPEN_INFERENCE["ModelReady"]
    return Call(method, request, replies.read_ready, asked, *_read_options(options), control=True)


def repository_index(*, ready_only: bool = False, **options: Unpack[CallOptions]) -> Call[tuple[ModelStatus, ...]]:
    """Every version in the server's repository, with its state."""
    request = open_inference_pb2.RepositoryIndexRequest(ready=ready_only)
    method = OPEN_INFERENCE["RepositoryIndex"]
    return Call(
        method, request, replies.read_repository_index, "list its models", *_read_options(options), control=True
    )


def statistics(
    model: str = "", *, version: str = "", **options: Unpack[CallOptions]
) -> Call[tuple[ModelStatistics, ...]]:
    """What a model, or every model, has done since it was loaded."""
    request = open_inference_pb2.ModelStatisticsRequest(name=model, version=version)
    asked = f"count what {_name_model(model, version)} did" if model else "count what its models did"
    method = OPEN_INFERENCE["ModelStatistics"]
    return Call(method, request, replies.read_statistics, asked, *_read_options(options), control=True)


def explain(
    model: str = "", *, version: str = "", limit: int = 0, **options: Unpack[CallOptions]
) -> Call[tuple[ExplainedVersion, ...]]:
    """The slowest and the refused requests of a model, or of every model, and where their time went.

    Args:
        model: its name; empty for every one.
        version: a number or a label; empty for every one.
        limit: requests of each kind and version; 0 for all that the server keeps.
        options: as for every call.
    """
    request = diagnostics_pb2.ExplainRequest(model_name=model, model_version=version, limit=limit)
    asked = f"explain {_name_model(model, version)}" if model else "explain late requests"
    return Call(DIAGNOSTICS["Explain"], request, replies.read_explained, asked, *_read_options(options), control=True)


def server_metadata(**options: Unpack[CallOptions]) -> Call[ServerMetadata]:
    """The server's name, version and extensions."""
    request = open_inference_pb2.ServerMetadataRequest()
    method = OPEN_INFERENCE["ServerMetadata"]
    return Call(method, request, replies.read_server_metadata, "say who it is", *_read_options(options), control=True)


def server_live(**options: Unpack[CallOptions]) -> Call[bool]:
    """Whether the process answers."""
    request = open_inference_pb2.ServerLiveRequest()
    method = OPEN_INFERENCE["ServerLive"]
    return Call(method, request, replies.read_live, "say whether it is live", *_read_options(options), control=True)


def server_ready(**options: Unpack[CallOptions]) -> Call[bool]:
    """Whether requests for models are welcome."""
    request = open_inference_pb2.ServerReadyRequest()
    method = OPEN_INFERENCE["ServerReady"]
    return Call(method, request, replies.read_ready, "say whether it is ready", *_read_options(options), control=True)


def readiness(model: str, *, version: str, timeout_s: float) -> Call[bool]:
    """Whether a model is ready, or, where none is named, the server."""
    return model_ready(model, version=version, timeout_s=timeout_s) if model else server_ready(timeout_s=timeout_s)


def check_metadata(metadata: Mapping[str, str | bytes]) -> tuple[tuple[str, str | bytes], ...]:
    """Keys and values as gRPC carries them; keys become lower case.

    Raises:
        InvalidRequestError: a key or a value that no header can be.
    """
    checked = tuple((str(key).lower(), value) for key, value in metadata.items())
    for key, value in checked:
        binary = key.endswith("-bin")
        if not _METADATA_KEY.fullmatch(key) or key.startswith("grpc-"):
            raise InvalidRequestError(f"metadata has the key {key!r}; expected letters, digits, '-', '_' and '.'")
        if not isinstance(value, bytes if binary else str):
            raise InvalidRequestError(
                f"metadata {key!r} is a {type(value).__name__}; expected {'bytes' if binary else 'text'} "
                "(bytes where the key ends with -bin)"
            )
        if isinstance(value, str) and not (value.isascii() and (value.isprintable() or not value)):
            raise InvalidRequestError(f"metadata {key!r} holds what a header cannot carry; expected printable ASCII")
    return checked


def _read_options(options: CallOptions) -> tuple[float | None, tuple[tuple[str, str | bytes], ...]]:
    if unknown := options.keys() - CallOptions.__annotations__.keys():
        raise TypeError(f"{min(unknown)!r} is no option of a call; known are {', '.join(CallOptions.__annotations__)}")
    timeout_s = options.get("timeout_s")
    if timeout_s is not None:
        check_seconds("timeout_s", timeout_s)
    metadata = dict(options.get("metadata") or {})
    if options.get("traceparent"):
        metadata["traceparent"] = options["traceparent"]
    return timeout_s, check_metadata(metadata)


def _name_model(model: str, version: str) -> str:
    return f"model {model!r} version {version!r}" if version else f"model {model!r}"


def _common_rows(inputs: Tensors, model: str) -> int:
    """The length of the first axis where all inputs share it, else 0: nothing to cut or to join."""
    common = None
    for name, array in inputs.items():
        try:
            rows = array.shape[0] if array.ndim else 0
        except AttributeError as error:
            raise _cannot_be_sent(name, model, error) from error
        if common is not None and rows != common:
            return 0
        common = rows
    return common or 0


def _infer_request(
    model: str,
    inputs: Tensors,
    version: str,
    outputs: Sequence[str],
    request_id: str,
    priority: int,
    parameters: Mapping[str, Parameter] | None,
) -> open_inference_pb2.ModelInferRequest:
    request = open_inference_pb2.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name in outputs:
        request.outputs.add(name=name)
    if priority or parameters:
        _add_parameters(request, priority, parameters or {})
    for name, array in inputs.items():
        try:
            request.raw_input_contents.append(encode_tensor(array))
            request.inputs.add(name=name, datatype=tensor_datatype(array).name, shape=array.shape)
        except (AttributeError, ValueError) as error:
            raise _cannot_be_sent(name, model, error) from error
    return request


def _cannot_be_sent(name: str, model: str, error: Exception) -> InvalidRequestError:
    return InvalidRequestError(f"input {name!r} of model {model!r} cannot be sent: {error}")


def _add_parameters(
    request: open_inference_pb2.ModelInferRequest, priority: int, parameters: Mapping[str, Parameter]
) -> None:
    if priority:
        if not 0 <= priority <= _MAX_INT64:
            raise InvalidRequestError(f"priority is {priority}; expected 0 to {_MAX_INT64}")
        request.parameters["priority"].uint64_param = priority
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}.get(type(value))
        if kind is None or (kind == "int64_param" and not -_MAX_INT64 - 1 <= value <= _MAX_INT64):  # type: ignore[operator]
            raise InvalidRequestError(
                f"parameter {name!r} is {value!r}; expected text, a truth value, a number of 64 bits"
            )
        setattr(request.parameters[name], kind, value)


def _infer_joint(
    model: str, inputs: Tensors, version: str, outputs: tuple[str, ...], priority: int, rows: int
) -> Joint:
    kinds = tuple([(name, array.dtype, array.shape[1:]) for name, array in inputs.items()])
    merge = partial(_merge_infer, model, version, outputs, priority)
    return Joint(("infer", model, version, outputs, priority, kinds), rows, inputs, merge, replies.part_of_infer)


def _merge_infer(
    model: str,
    version: str,
    outputs: tuple[str, ...],
    priority: int,
    payloads: Sequence[Tensors],
    timeout_s: float,
) -> Call[InferResult]:
    joined = {name: np.concatenate([payload[name] for payload in payloads]) for name in payloads[0]}
    return infer(model, joined, version=version, outputs=outputs, priority=priority, timeout_s=timeout_s)


def _classify_request(
    images: Sequence[classifier_pb2.Image],
    version: str,
    *,
    model: str,
    top_k: int,
    min_probability: float,
    id: str,  # noqa: A002 - the field's name
) -> classifier_pb2.ClassifyRequest:
    return classifier_pb2.ClassifyRequest(
        model_name=model, model_version=version, id=id, images=images, top_k=top_k, min_probability=min_probability
    )


def _classify_call(
    images: Sequence[classifier_pb2.Image],
    version: str,
    build: "partial[classifier_pb2.ClassifyRequest]",
    options: tuple[float | None, tuple[tuple[str, str | bytes], ...]],
) -> Call[ClassifyResult]:
    model = build.keywords["model"]
    pictures = "1 picture" if len(images) == 1 else f"{len(images)} pictures"
    read = partial(replies.read_classify, image_count=len(images))
    asked = f"classify {pictures} with {_name_model(model, version)}"
    call = Call(IMAGE_CLASSIFIER["Classify"], build(images, version), read, asked, *options)
    if not (build.keywords["id"] or options[1]):

        def merge(payloads: Sequence[Sequence[classifier_pb2.Image]], timeout_s: float) -> Call[ClassifyResult]:
            return _classify_call([image for part in payloads for image in part], version, build, (timeout_s, ()))

        key = ("classify", model, version, build.keywords["top_k"], build.keywords["min_probability"])
        joint = partial(Joint, key, len(images), images, merge, replies.part_of_classify)
        call = replace(call, joint=joint, model=(model, version))
    if len(images) == 1:
        return call

    def cut(start: int, stop: int, version: str) -> Call[ClassifyResult]:
        return _classify_call(images[start:stop], version, build, options)

    return replace(call, pieces=Pieces(model, version, len(images), cut, replies.join_classify))
