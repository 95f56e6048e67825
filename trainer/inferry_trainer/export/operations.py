"""Operations of TensorFlow that tf2onnx does not know, or converts only nearly, in operations of ONNX.

`HANDLERS` goes to tf2onnx as `custom_op_handlers`. A handler that cannot express a node, because a size is not
known when the graph is exported, leaves it alone: the export then names it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tf2onnx import utils

from inferry_trainer.export.resizing import resize_matrices

Value = str  # the name of a tensor


class Rewriting:
    """A node of TensorFlow's, and the ONNX nodes that take its place.

    Attributes:
        inputs: names of the tensors that the node takes.
    """

    def __init__(self, graph: Any, node: Any) -> None:
        self.graph = graph
        self.node = node
        self.inputs: list[Value] = list(node.input)

    def add(self, op_type: str, *inputs: Value, **attributes: Any) -> Value:
        """Write a node of ONNX's with one output, and name that output."""
        name = utils.make_name(f"{self.node.name}/{op_type}")
        output: Value = self.graph.make_node(op_type, list(inputs), attr=attributes, name=name).output[0]
        return output

    def constant(self, value: Any, dtype: Any = None) -> Value:
        """Write a constant, of the first input's type unless one is given."""
        dtype = dtype or utils.map_onnx_to_numpy_type(self.graph.get_dtype(self.inputs[0]))
        name = utils.make_name(f"{self.node.name}/constant")
        output: Value = self.graph.make_const(name, np.asarray(value, dtype)).output[0]
        return output

    def known(self, index: int) -> NDArray[Any] | None:
        """The value of an input that is a constant; None where it is computed."""
        producer = self.node.inputs[index]
        return producer.get_tensor_value(as_list=False) if producer is not None and producer.is_const() else None

    def finish(self, result: Value) -> None:
        """Let a value take the place of what the node gave."""
        node = self.node
        shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, list(node.output)
        self.graph.remove_node(node.name)
        self.graph.make_node("Identity", [result], name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def _erfc(to: Rewriting) -> Value:
    return to.add("Sub", to.constant(1), to.add("Erf", to.inputs[0]))


def _expm1(to: Rewriting) -> Value:
    return to.add("Sub", to.add("Exp", to.inputs[0]), to.constant(1))


def _log1p(to: Rewriting) -> Value:
    return to.add("Log", to.add("Add", to.inputs[0], to.constant(1)))


def _invert(to: Rewriting) -> Value:
    """Two's complement: ~x is -x - 1."""
    return to.add("Sub", to.add("Neg", to.inputs[0]), to.constant(1))


def _zero_where_zero(to: Rewriting, *, tested: Value, otherwise: Value) -> Value:
    zero = to.constant(0)
    return to.add("Where", to.add("Equal", tested, zero), zero, otherwise)


def _xlogy(to: Rewriting) -> Value:
    x, y = to.inputs
    return _zero_where_zero(to, tested=x, otherwise=to.add("Mul", x, to.add("Log", y)))


def _xlog1py(to: Rewriting) -> Value:
    x, y = to.inputs
    logarithm = to.add("Log", to.add("Add", y, to.constant(1)))
    return _zero_where_zero(to, tested=x, otherwise=to.add("Mul", x, logarithm))


def _xdivy(to: Rewriting) -> Value:
    x, y = to.inputs
    return _zero_where_zero(to, tested=x, otherwise=to.add("Div", x, y))


def _mul_no_nan(to: Rewriting) -> Value:
    x, y = to.inputs
    return _zero_where_zero(to, tested=y, otherwise=to.add("Mul", x, y))


def _euclidean_norm(to: Rewriting) -> Value | None:
    axes = to.known(1)
    if axes is None:
        return None
    kept = to.node.get_attr_value("keep_dims", 0)
    return to.add("ReduceL2", to.inputs[0], axes=np.ravel(axes).tolist(), keepdims=int(kept))


def _sign_bit(to: Rewriting) -> Value | None:
    """A float's bits and the sign's: Keras asks so whether a number is negative, -0.0 included; no more is known."""
    bits, mask = to.node.inputs[0], to.known(1)
    if bits.type != "Bitcast" or mask is None or np.any(mask != np.iinfo(np.int32).min):
        return None
    x = bits.input[0]
    if utils.map_onnx_to_numpy_type(to.graph.get_dtype(x)) != np.float32:
        return None
    zero = to.constant(0, np.float32)
    signed = to.add("Where", to.add("Equal", x, zero), to.add("Reciprocal", x), x)
    return to.add("Where", to.add("Less", signed, zero), to.inputs[1], to.constant(0))


def _resize(to: Rewriting) -> Value | None:
    """Rows and columns, each through the matrix that TensorFlow's own operation amounts to."""
    shape = to.graph.get_shape(to.inputs[0])
    given = [to.known(index) for index in range(1, len(to.inputs))]
    if shape is None or min(shape[1:]) < 1 or any(value is None for value in given):
        return None
    _, height, width, channels = shape
    rows, columns = resize_matrices(to.node.type, (height, width), given, _resize_attributes(to.node))
    pixels = to.add("Cast", to.inputs[0], to=utils.map_numpy_to_onnx_dtype(np.float32))
    flat = to.add("Reshape", pixels, to.constant([-1, height, width * channels], np.int64))
    fewer = to.add("MatMul", to.constant(rows, np.float32), flat)
    parted = to.add("Reshape", fewer, to.constant([-1, len(rows), width, channels], np.int64))
    return to.add("MatMul", to.constant(columns, np.float32), parted)


def _resize_attributes(node: Any) -> dict[str, bool | str]:
    flags = {name: bool(node.get_attr_value(name)) for name in _RESIZE_FLAGS if name in node.attr}
    return flags | {name: node.get_attr_str(name) for name in ("kernel_type",) if name in node.attr}


_RESIZE_FLAGS = ("align_corners", "half_pixel_centers", "antialias")

_REWRITES: dict[str, Callable[[Rewriting], Value | None]] = {
    "BitwiseAnd": _sign_bit,
    "Erfc": _erfc,
    "EuclideanNorm": _euclidean_norm,
    "Expm1": _expm1,
    "Invert": _invert,
    "Log1p": _log1p,
    "MulNoNan": _mul_no_nan,
    "ResizeBicubic": _resize,  # TensorFlow reads its coefficients from a table, ONNX computes them
    "ScaleAndTranslate": _resize,
    "Xdivy": _xdivy,
    "Xlog1py": _xlog1py,
    "Xlogy": _xlogy,
}


def _handle(graph: Any, node: Any, _name: str, _arguments: list[Any]) -> None:
    rewriting = Rewriting(graph, node)
    result = _REWRITES[node.type](rewriting)
    if result is not None:
        rewriting.finish(result)


HANDLERS: dict[str, tuple[Callable[..., None], list[Any]]] = {op_type: (_handle, []) for op_type in _REWRITES}
