"""Requests for a model's outputs. Those that hold tensors alone are written without protobuf's messages.

To write a request by protobuf takes ten times as long. Requests of a program differ in their contents alone, so what
they have in common is kept: names and shapes as they travel, the model's name in errors, and with whom they are joined.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from inferry_client.errors import InvalidRequestError, InvalidSettingError
from inferry_client.limits import check_kind, check_text, check_texts, check_whole_number
from inferry_client.messages import replies
from inferry_client.messages.call import Call, CallOptions, Joint, Pieces, name_model, read_options
from inferry_client.messages.tensors import before_contents, encode_tensor, sent_as
from inferry_client.results import InferResult
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from inferry_proto.variants import PARAMETER, write_accepted

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
Parameter: TypeAlias = bool | int | float | str
AcceptedVariants: TypeAlias = bool | str | Sequence[str]

_Look: TypeAlias = "tuple[str, type, np.dtype[Any], tuple[int, ...]]"  # of an array, and its input's name

_METHOD = OPEN_INFERENCE["ModelInfer"]
_MAX_INT64 = 2**63 - 1
_CONTENTS = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER


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
    try:
        arrays: tuple[NDArray[Any], ...] = ()
        looks: tuple[_Look, ...] = ()
        for name, array in inputs.items():  # of which there are few; comprehensions would be calls
            arrays += (array,)
            looks += ((name, type(array), array.dtype, array.shape),)
        alike = _alike(model, version, looks)
    except (AttributeError, TypeError, UnicodeEncodeError):  # looked for only now: it would cost every call
        _check_inputs(model, version, inputs)
        raise
    joint, settings = alike.joint, None
    if outputs or request_id or priority or parameters or accept_variant is not None:
        settings = _settings(outputs, request_id, priority, parameters, accept_variant)
        if joint:
            joint = settings.joint(alike)
    timeout_s, metadata = read_options(options) if options else (None, ())
    if metadata:
        joint = None
    message, rows = _InferRequest(alike, arrays, settings), alike.rows
    call = Call(
        _METHOD, message, replies.read_infer, alike.asked, timeout_s, metadata, None, joint, alike.model, rows
    )  # fmt: skip
    if rows > 1:
        again = partial(
            infer, model, outputs=outputs, request_id=request_id, priority=priority, parameters=parameters,
            accept_variant=accept_variant, **options,
        )  # fmt: skip
        call.pieces = _pieces(message, again)
    return call


def accepted_variants(accept_variant: AcceptedVariants) -> str:
    """The text that says which variants may answer.

    Raises:
        InvalidRequestError: it names none that there are.
    """
    try:
        return write_accepted(accept_variant)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"accept_variant is {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class _Alike:
    """What requests have in common whose model, version and looks of arrays are the same.

    Attributes:
        asked: what their callers want, for messages.
        model: that is asked, and its version.
        looks: of the arrays, with their inputs' names.
        rows: that all inputs have; 0: there is nothing to cut or to join.
        written: a request without contents, as it travels.
        before: what stands before the contents of each input; empty where contents differ in length, or arrays do not
            lie in memory as they travel.
        joint: how they are joined where they have no settings; None where they cannot be.
    """

    asked: str
    model: tuple[str, str]
    looks: tuple[_Look, ...]
    rows: int
    written: bytes
    before: tuple[bytes, ...]
    joint: Joint | None


@lru_cache(maxsize=256)
def _alike(model: str, version: str, looks: tuple[_Look, ...]) -> _Alike:
    request = ModelInferRequest(model_name=model, model_version=version)
    before: list[bytes] = []
    for name, kind, dtype, shape in looks:
        try:
            datatype, as_it_is = sent_as(dtype)
        except ValueError as error:
            raise _cannot_be_sent(name, model, error) from error
        request.inputs.add(name=name, datatype=datatype.name, shape=shape)
        if as_it_is and kind is np.ndarray:
            before.append(before_contents(_CONTENTS, math.prod(shape) * dtype.itemsize))
    lengths = {shape[:1] for _, _, _, shape in looks}
    rows = sum(lengths.pop()) if len(lengths) == 1 else 0
    return _Alike(
        asked=f"run {name_model(model, version)}",
        model=(model, version),
        looks=looks,
        rows=rows,
        written=request.SerializeToString(),
        before=tuple(before) if len(before) == len(looks) else (),
        joint=_joint(model, version, _of_a_row(looks), (), 0) if rows else None,
    )


def _of_a_row(looks: tuple[_Look, ...]) -> tuple[_Look, ...]:
    return tuple([(name, kind, dtype, shape[1:]) for name, kind, dtype, shape in looks])


@lru_cache(maxsize=256)
def _joint(model: str, version: str, looks: tuple[_Look, ...], outputs: tuple[str, ...], priority: int) -> Joint:
    """How requests are joined whose rows look like this."""
    names = [name for name, *_ in looks]
    ask = partial(infer, model, version=version, outputs=outputs, priority=priority)

    def merge(messages: Sequence[_InferRequest], timeout_s: float) -> Call[InferResult]:
        arrays = map(np.concatenate, zip(*[message.arrays for message in messages], strict=True))
        call = ask(dict(zip(names, arrays, strict=True)), timeout_s=timeout_s)
        call.read = partial(replies.read_joined, rows=call.rows)
        return call

    return Joint(merge, replies.split_infer)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a request says beside its tensors; the attributes are arguments of `infer`."""

    outputs: tuple[str, ...]
    request_id: str
    priority: int
    parameters: Mapping[str, Parameter]

    def joint(self, alike: _Alike) -> Joint | None:
        """How requests with these settings are joined; None: they travel alone."""
        if self.request_id or self.parameters:
            return None
        return _joint(*alike.model, _of_a_row(alike.looks), self.outputs, self.priority)

    def add_to(self, request: ModelInferRequest) -> None:
        """Say it in a request."""
        if self.request_id:
            request.id = self.request_id
        for name in self.outputs:
            request.outputs.add(name=name)
        if self.priority:
            request.parameters["priority"].uint64_param = self.priority
        for name, value in self.parameters.items():
            check_text("the name of a parameter", name)
            kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}.get(type(value))
            if kind is None or (kind == "int64_param" and not -_MAX_INT64 - 1 <= value <= _MAX_INT64):  # type: ignore[operator]
                raise InvalidRequestError(
                    f"parameter {name!r} is {value!r}; expected text, a truth value, a number of 64 bits"
                )
            if kind == "string_param":
                check_text(f"parameter {name!r}", value)
            setattr(request.parameters[name], kind, value)


def _settings(
    outputs: Sequence[str],
    request_id: str,
    priority: int,
    parameters: Mapping[str, Parameter] | None,
    accept_variant: AcceptedVariants | None,
) -> _Settings:
    if isinstance(outputs, (str, bytes)):
        raise InvalidSettingError(f"outputs is {outputs!r}; expected a sequence of names, like [{outputs!r}]")
    names = tuple(outputs or ())
    for name in names:
        check_text("the name of an output", name)
    check_text("request_id", request_id)
    priority = check_whole_number("priority", priority, 0, _MAX_INT64) if priority else 0
    parameters = parameters or {}
    check_kind("parameters", parameters, Mapping, "values by their names")
    if accept_variant is not None:
        parameters = {**parameters, PARAMETER: accepted_variants(accept_variant)}
    return _Settings(names, request_id, priority, parameters)


@dataclass(slots=True, eq=False)
class _InferRequest:
    """A ModelInferRequest that is built or serialized when it is asked for."""

    alike: _Alike
    arrays: tuple[NDArray[Any], ...]
    settings: _Settings | None

    def build(self) -> ModelInferRequest:
        request = ModelInferRequest.FromString(self._tensors())
        if self.settings:
            self.settings.add_to(request)
        return request

    def SerializeToString(self) -> bytes:  # noqa: N802 - see Unbuilt
        return self.build().SerializeToString() if self.settings else self._tensors()

    def _tensors(self) -> bytes:
        alike = self.alike
        parts = [alike.written]
        if alike.before:
            for before, array in zip(alike.before, self.arrays, strict=True):
                parts += (before, array.tobytes())
        else:
            for look, array in zip(alike.looks, self.arrays, strict=True):
                contents = self._contents(look[0], array)
                parts += (before_contents(_CONTENTS, len(contents)), contents)
        return b"".join(parts)

    def _contents(self, name: str, array: NDArray[Any]) -> bytes:
        try:
            return encode_tensor(array)
        except (AttributeError, ValueError) as error:  # tensors of other libraries have a dtype and a shape, too
            problem = error if isinstance(error, ValueError) else _no_array(array)
            raise _cannot_be_sent(name, self.alike.model[0], problem) from error


def _pieces(message: _InferRequest, ask: Callable[..., Call[InferResult]]) -> Pieces[InferResult]:
    """How a request is cut; `ask` builds its call anew."""
    model, version = message.alike.model
    rows = message.alike.rows

    def cut(start: int, stop: int, version: str) -> Call[InferResult]:
        part = {look[0]: array[start:stop] for look, array in zip(message.alike.looks, message.arrays, strict=True)}
        return ask(part, version=version)

    return Pieces(model, version, rows, cut, partial(replies.join_infer, rows=rows))


def _check_inputs(model: str, version: str, inputs: Tensors) -> None:
    """Name what is no text, no mapping or no array; nothing where all are."""
    if not hasattr(inputs, "items"):
        raise InvalidSettingError(
            f"inputs is a {type(inputs).__name__}; expected arrays by their inputs' names, like {{'images': array}}"
        ) from None
    check_texts(model=model, version=version)
    for name, array in inputs.items():
        check_text("the name of an input", name)
        if not isinstance(array, (np.ndarray, np.generic)):
            raise _cannot_be_sent(name, model, _no_array(array)) from None


def _no_array(given: object) -> str:
    return f"it is a {type(given).__name__}; expected a NumPy array"


def _cannot_be_sent(name: str, model: str, problem: object) -> InvalidRequestError:
    return InvalidRequestError(f"input {name!r} of model {model!r} cannot be sent: {problem}")
