"""A good request, and ways to spoil it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from inferry_proto.open_inference_pb2 import ModelInferRequest
from testkit.rpc import infer_request

Change = Callable[[ModelInferRequest], object]


def pair(rows: int = 2) -> ModelInferRequest:
    """A good request for `joiner`: two inputs `[rows, 2]`, two outputs."""
    zeros = np.zeros((rows, 2), np.float32)
    return infer_request("joiner", left=zeros, right=zeros)


def but(request: ModelInferRequest, *changes: Change) -> ModelInferRequest:
    """The request with something changed."""
    for change in changes:
        change(request)
    return request


def parameter(name: str, **choice: Any) -> Change:
    """A parameter of the request, as `int64_param=1`."""

    def change(request: ModelInferRequest) -> None:
        for kind, value in choice.items():
            setattr(request.parameters[name], kind, value)

    return change


def datatype(position: int, name: str) -> Change:
    """Another datatype of an input."""
    return lambda request: setattr(request.inputs[position], "datatype", name)


def shape(position: int, *axes: int) -> Change:
    """Another shape of an input."""
    return lambda request: request.inputs[position].shape.__setitem__(slice(None), axes)


def rename(position: int, new: str) -> Change:
    """Another name of an input."""
    return lambda request: setattr(request.inputs[position], "name", new)


def raw(position: int, data: bytes) -> Change:
    """Other bytes of an input."""
    return lambda request: request.raw_input_contents.__setitem__(position, data)


def add_input(new: str) -> Change:
    """One input more, of the others' kind."""

    def change(request: ModelInferRequest) -> None:
        request.inputs.add(name=new, datatype="FP32", shape=[2, 2])
        request.raw_input_contents.append(bytes(16))

    return change


def ask_for(*outputs: str, **parameters: Any) -> Change:
    """Request outputs; parameters are those of the last one, as `name=("int64_param", value)`."""

    def change(request: ModelInferRequest) -> None:
        for output in outputs:
            tensor = request.outputs.add(name=output)
        for key, (kind, value) in parameters.items():
            setattr(tensor.parameters[key], kind, value)

    return change
