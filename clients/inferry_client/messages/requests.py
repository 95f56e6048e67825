"""Requests to compute, built from what callers have. Each is a `Call`: all that a transport needs to know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from inferry_client.errors import InvalidRequestError, InvalidSettingError
from inferry_client.limits import MAX_TOP_K, check_kind, check_share, check_text, check_texts, check_whole_number
from inferry_client.messages import replies
from inferry_client.messages.call import Call, CallOptions, Joint, Pieces, name_model, read_options
from inferry_client.messages.pictures import Pictures, as_sequence, read_picture
from inferry_client.messages.tensors import before_contents, wire_tensor
from inferry_client.results import (
    ClassifyResult,
    InferResult,
)
from inferry_proto import classifier_pb2, open_inference_pb2
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE
from inferry_proto.variants import PARAMETER, write_accepted

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
Parameter: TypeAlias = bool | int | float | str
AcceptedVariants: TypeAlias = bool | str | Sequence[str]

_MODEL_INFER = OPEN_INFERENCE["ModelInfer"]
_MAX_INT64 = 2**63 - 1
_CONTENTS = open_inference_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER


def classify(
    model: str,
    images: Pictures,
    *,
    version: str = "",
    top_k: int = 1,
    min_probability: float = 0.0,
    request_id: str = "",
    accept_variant: AcceptedVariants | None = None,
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
        accept_variant: whether a variant of the model may answer where the model has no room: all (True), none
            (False), or those of some precisions (`"int8"`); None: as the model's settings say.
        options: see `CallOptions`.

    Raises:
        InvalidRequestError: nothing that is a picture, none at all, or a value out of its range.
    """
    pictures = as_sequence(images)
    check_texts(model=model, version=version, request_id=request_id)
    top_k = check_whole_number("top_k", top_k, 1, MAX_TOP_K)
    min_probability = check_share("min_probability", min_probability)
    messages = [read_picture(position, picture) for position, picture in enumerate(pictures)]
    request = partial(
        _classify_request,
        model=model,
        top_k=top_k,
        min_probability=min_probability,
        id=request_id,
        accept_variant=_accepted(accept_variant),
    )
    return _classify_call(messages, version, request, read_options(options))


def infer(
    model: str,
    inputs: Tensors,
    *,
    version: str = "",
    outputs: Sequence[str] = (),
    request_id: str = "",
    priority: int = 0,
    parameters: Mapping[str, Parameter] | None = None,
    accept_variant: AcceptedVariants | None = None,
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
        accept_variant: whether a variant of the model may answer where the model has no room: all (True), none
            (False), or those of some precisions (`"int8"`); None: as the model's settings say.
        options: see `CallOptions`.

    Raises:
        InvalidRequestError: an array or a parameter that the protocol cannot carry.
    """
    if accept_variant is not None:
        parameters = {**(parameters or {}), PARAMETER: _accepted(accept_variant)}
    message = _InferRequest(model, inputs, version, outputs, request_id, priority, parameters)
    timeout_s, metadata = read_options(options) if options else (None, ())
    asked = f"run {name_model(model, version)}" if version else f"run model {model!r}"  # spares every call a function
    rows = _common_rows(inputs, model)
    joint = None
    if not (request_id or parameters or metadata or rows < 1):
        joint = partial(_infer_joint, model, inputs, version, outputs, priority, rows)
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


def _accepted(accept_variant: AcceptedVariants | None) -> str:
    """The text that says which variants may answer; empty for None."""
    try:
        return "" if accept_variant is None else write_accepted(accept_variant)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"accept_variant is {error}") from None


def _common_rows(inputs: Tensors, model: str) -> int:
    """The length of the first axis where all inputs share it, else 0: nothing to cut or to join."""
    common = None
    try:
        named = inputs.items()
    except AttributeError:
        raise InvalidSettingError(
            f"inputs is a {type(inputs).__name__}; expected arrays by their inputs' names, like {{'images': array}}"
        ) from None
    for name, array in named:
        try:
            rows = array.shape[0] if array.ndim else 0
        except AttributeError:
            raise _cannot_be_sent(name, model, _no_array(array)) from None
        if common is not None and rows != common:
            return 0
        common = rows
    return common or 0


@dataclass(slots=True)
class _InferRequest:
    """A ModelInferRequest that is built or serialized when it is asked for; the arguments are those of `infer`."""

    model: str
    inputs: Tensors
    version: str
    outputs: Sequence[str]
    request_id: str
    priority: int
    parameters: Mapping[str, Parameter] | None

    def build(self) -> open_inference_pb2.ModelInferRequest:
        request = open_inference_pb2.ModelInferRequest.FromString(self._tensors())
        try:
            if self.request_id:
                request.id = self.request_id
            if self.outputs:
                _add_outputs(request, self.outputs)
            if self.priority or self.parameters:
                _add_parameters(request, self.priority, self.parameters or {})
        except (TypeError, UnicodeEncodeError):
            check_text("request_id", self.request_id)
            raise
        return request

    def serialize(self) -> bytes:
        if self.request_id or self.outputs or self.priority or self.parameters:
            return self.build().SerializeToString()
        return self._tensors()

    def _tensors(self) -> bytes:
        """Model and tensors as they travel, without a message of protobuf's, which would cost ten times as much."""
        tensors, contents = [], [b""]
        for name, array in self.inputs.items():
            try:
                datatype, content = wire_tensor(array)
            except AttributeError as error:  # it has a shape, as tensors of other libraries have
                raise _cannot_be_sent(name, self.model, _no_array(array)) from error
            except ValueError as error:
                raise _cannot_be_sent(name, self.model, error) from error
            tensors.append((name, datatype, array.shape))
            contents += (before_contents(_CONTENTS, len(content)), content)
        try:
            contents[0] = _described(self.model, self.version, tuple(tensors))
        except (TypeError, UnicodeEncodeError):  # looked for only now: it would cost every call
            check_texts(model=self.model, version=self.version)
            for name in self.inputs:
                check_text("the name of an input", name)
            raise
        return b"".join(contents)


@lru_cache(maxsize=256)  # requests of a caller look alike
def _described(model: str, version: str, tensors: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """A serialized request without contents."""
    request = open_inference_pb2.ModelInferRequest(model_name=model, model_version=version)
    for name, datatype, shape in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
    return request.SerializeToString()


def _no_array(given: object) -> str:
    return f"it is a {type(given).__name__}; expected a NumPy array"


def _cannot_be_sent(name: str, model: str, problem: object) -> InvalidRequestError:
    return InvalidRequestError(f"input {name!r} of model {model!r} cannot be sent: {problem}")


def _add_outputs(request: open_inference_pb2.ModelInferRequest, outputs: Sequence[str]) -> None:
    if isinstance(outputs, (str, bytes)):
        raise InvalidSettingError(f"outputs is {outputs!r}; expected a sequence of names, like [{outputs!r}]")
    for name in outputs:
        check_text("the name of an output", name)
        request.outputs.add(name=name)


def _add_parameters(
    request: open_inference_pb2.ModelInferRequest, priority: int, parameters: Mapping[str, Parameter]
) -> None:
    if priority:
        request.parameters["priority"].uint64_param = check_whole_number("priority", priority, 0, _MAX_INT64)
    check_kind("parameters", parameters, Mapping, "values by their names")
    for name, value in parameters.items():
        check_text("the name of a parameter", name)
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}.get(type(value))
        if kind is None or (kind == "int64_param" and not -_MAX_INT64 - 1 <= value <= _MAX_INT64):  # type: ignore[operator]
            raise InvalidRequestError(
                f"parameter {name!r} is {value!r}; expected text, a truth value, a number of 64 bits"
            )
        if kind == "string_param":
            check_text(f"parameter {name!r}", value)
        setattr(request.parameters[name], kind, value)


def _infer_joint(model: str, inputs: Tensors, version: str, outputs: Sequence[str], priority: int, rows: int) -> Joint:
    kinds = tuple([(name, array.dtype, array.shape[1:]) for name, array in inputs.items()])
    key = ("infer", model, version, tuple(outputs or ()), priority, kinds)
    return Joint(key, rows, inputs, _merge_infer, replies.part_of_infer)


def _merge_infer(
    key: tuple[str, str, str, tuple[str, ...], int, Any], payloads: Sequence[Tensors], timeout_s: float
) -> Call[InferResult]:
    _, model, version, outputs, priority, _ = key
    joined = {name: np.concatenate([payload[name] for payload in payloads]) for name in payloads[0]}
    call = infer(model, joined, version=version, outputs=outputs, priority=priority, timeout_s=timeout_s)
    return replace(call, read=partial(replies.read_joined, rows=_common_rows(joined, model)))


def _classify_request(
    images: Sequence[classifier_pb2.Image],
    version: str,
    *,
    model: str,
    top_k: int,
    min_probability: float,
    id: str,  # noqa: A002 - the field's name
    accept_variant: str,
) -> classifier_pb2.ClassifyRequest:
    return classifier_pb2.ClassifyRequest(
        model_name=model, model_version=version, id=id, images=images, top_k=top_k, min_probability=min_probability,
        accept_variant=accept_variant,
    )  # fmt: skip


def _classify_call(
    images: Sequence[classifier_pb2.Image],
    version: str,
    build: "partial[classifier_pb2.ClassifyRequest]",
    options: tuple[float | None, tuple[tuple[str, str | bytes], ...]],
) -> Call[ClassifyResult]:
    model = build.keywords["model"]
    pictures = "1 picture" if len(images) == 1 else f"{len(images)} pictures"
    read = partial(replies.read_classify, image_count=len(images))
    asked = f"classify {pictures} with {name_model(model, version)}"
    call = Call(IMAGE_CLASSIFIER["Classify"], build(images, version), read, asked, *options)
    if not (build.keywords["id"] or options[1]):

        def merge(_: Any, payloads: Sequence[Sequence[classifier_pb2.Image]], timeout_s: float) -> Call[ClassifyResult]:
            return _classify_call([image for part in payloads for image in part], version, build, (timeout_s, ()))

        asked_alike = tuple(build.keywords[name] for name in ("top_k", "min_probability", "accept_variant"))
        key = ("classify", model, version, *asked_alike)
        joint = partial(Joint, key, len(images), images, merge, replies.part_of_classify)
        call = replace(call, joint=joint, model=(model, version))
    if len(images) == 1:
        return call

    def cut(start: int, stop: int, version: str) -> Call[ClassifyResult]:
        return _classify_call(images[start:stop], version, build, options)

    return replace(call, pieces=Pieces(model, version, len(images), cut, replies.join_classify))
