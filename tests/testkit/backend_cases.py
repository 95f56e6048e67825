"""The `onnx` package's backend tests as a model repository: single nodes with inputs and what they answer."""

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

# ONNX's element types, by the protocol's names.
ELEMENT_TYPES = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.STRING: "BYTES",
}


@dataclass(frozen=True)
class Tensor:
    """One input or expected output; `array` is as `onnx` gives it, BF16 as ml_dtypes has it."""

    name: str
    datatype: str
    array: NDArray[Any]


@dataclass(frozen=True)
class BackendCase:
    """One model, what it is asked, and what it must answer.

    Attributes:
        name: as the package has it, like `test_conv_with_strides_padding`.
        operator: of its only node.
        rtol: relative tolerance that the package states.
        atol: absolute, likewise.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rtol: float
    atol: float

    def save(self, repository: Path) -> None:
        """Put the model into a repository, as version 1."""
        folder = repository / self.name / "1"
        folder.mkdir(parents=True)
        onnx.save(self.model, folder / "model.onnx")


@cache
def collect_backend_cases() -> tuple[BackendCase, ...]:
    """Every case of one node, all of whose inputs have a fixed shape and a datatype of the protocol.

    The package brings no files: its cases compute their vectors when asked, which takes seconds.
    """
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # infinities that the vectors want
        collected = collect_testcases(None)
    return tuple(_backend_case(case) for case in collected if _fits(case.model.graph) and case.data_sets)


def _fits(graph: onnx.GraphProto) -> bool:
    return (
        len(graph.node) == 1
        and all(_has_datatype(value) for value in (*graph.input, *graph.output))
        and all(_has_fixed_shape(value.type.tensor_type) for value in graph.input)
    )


def _has_datatype(value: onnx.ValueInfoProto) -> bool:
    return value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.elem_type in ELEMENT_TYPES


def _has_fixed_shape(tensor: onnx.TypeProto.Tensor) -> bool:
    return tensor.HasField("shape") and all(axis.HasField("dim_value") for axis in tensor.shape.dim)


def _backend_case(case: Any) -> BackendCase:
    graph = case.model.graph
    inputs, outputs = case.data_sets[0]
    return BackendCase(
        name=case.name,
        operator=graph.node[0].op_type,
        model=case.model,
        inputs=_tensors(graph.input, inputs),
        outputs=_tensors(graph.output, outputs),
        rtol=case.rtol,
        atol=case.atol,
    )


def _tensors(values: Any, arrays: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(value.name, ELEMENT_TYPES[value.type.tensor_type.elem_type], _array(array))
        for value, array in zip(values, arrays, strict=True)
    )


def _array(array: Any) -> NDArray[Any]:
    return np.asarray(onnx.numpy_helper.to_array(array) if isinstance(array, onnx.TensorProto) else array)
