"""From a float32 graph to one that computes in float16, for GPUs: half the memory traffic, tensor cores.

The images stay uint8 and the probabilities float32: what clients see does not change. The last softmax or
sigmoid is computed in float32, because float16 has no numbers between 0.9995 and 1. What ONNX fixes to float32,
such as the scales of `Resize`, stays float32 too.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper, shape_inference

from inferry_trainer.errors import ExportError

_LARGEST = 65504.0
_SMALLEST = 2.0**-24
_FLOAT, _HALF = "tensor(float)", "tensor(float16)"
_TYPE_ATTRIBUTES = ("to", "dtype")  # of Cast, EyeLike and the random ones: the type that a node gives
_PROBABILITIES = ("Softmax", "Sigmoid")


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 graph whose weights and inner values are float16.

    Raises:
        ExportError: a weight that float16 cannot hold.
    """
    half = shape_inference.infer_shapes(model)
    opset = max(opset.version for opset in half.opset_import if opset.domain in ("", "ai.onnx"))
    _retype_graph(half.graph, opset)
    _widen_outputs(half.graph)
    return half


def _retype_graph(graph: onnx.GraphProto, opset: int) -> None:
    """Make float16 of a graph and of those within its nodes; not of what it takes and gives, which has its own type."""
    floats = _float_values(graph)
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    kept: dict[str, onnx.TensorProto] = {}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        _retype_attributes(node, opset)
        graph.node.extend(_with_fixed_types(node, opset, floats=floats, weights=weights, kept=kept))
    used = {name for node in graph.node for name in node.input}
    for name, tensor in weights.items():
        if name in kept and name not in used:
            graph.initializer.remove(tensor)
        else:
            tensor.CopyFrom(numpy_helper.from_array(_rounded(tensor), name))
    graph.initializer.extend(kept.values())
    del graph.value_info[:]


def _with_fixed_types(
    node: onnx.NodeProto,
    opset: int,
    *,
    floats: set[str],
    weights: dict[str, onnx.TensorProto],
    kept: dict[str, onnx.TensorProto],
) -> list[onnx.NodeProto]:
    """A node between casts, where ONNX lets it take or give float32 but not float16.

    Args:
        node: changed where it is.
        opset: of the graph.
        floats: names of the values that were float32.
        weights: as they were, by name.
        kept: weights that some node takes as they were; more are added, under names of their own.
    """
    before, after = [], []
    inputs, outputs = _fixed_to_float32(node, opset)
    for index in inputs:
        name = node.input[index]
        if name in weights:
            node.input[index] = f"{name}_float32"
            kept[name] = numpy_helper.from_array(numpy_helper.to_array(weights[name]), node.input[index])
        elif name in floats:
            node.input[index] = f"{node.output[0]}_takes_{index}"
            before.append(helper.make_node("Cast", [name], [node.input[index]], to=TensorProto.FLOAT))
    for index in outputs:
        name = node.output[index]
        if name in floats:
            node.output[index] = f"{name}_float32"
            after.append(helper.make_node("Cast", [node.output[index]], [name], to=TensorProto.FLOAT16))
    return [*before, node, *after]


def _float_values(graph: onnx.GraphProto) -> set[str]:
    """Names of the values in a graph that are float32."""
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def _rounded(tensor: onnx.TensorProto) -> NDArray[np.float16]:
    values: NDArray[np.float32] = numpy_helper.to_array(tensor)
    if values.size == 1:
        return _nearest(values)
    if values.size and not np.abs(values).max() <= _LARGEST:
        raise ExportError(
            f"the weights {tensor.name!r} reach {np.abs(values).max():.3g}; float16 ends at {_LARGEST:g}: "
            "publish float32 instead"
        )
    return values.astype(np.float16)


def _nearest(value: NDArray[np.float32]) -> NDArray[np.float16]:
    """A single number is a bound or a guard against division by 0, not a weight: it must become neither inf nor 0."""
    size = np.where(np.isinf(value) | (value == 0), np.abs(value), np.clip(np.abs(value), _SMALLEST, _LARGEST))
    return np.copysign(size, value).astype(np.float16)


def _retype_attributes(node: onnx.NodeProto, opset: int) -> None:
    for attribute in node.attribute:
        if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(_rounded(attribute.t), attribute.t.name))
        elif attribute.type == AttributeProto.GRAPH:
            _retype_graph(attribute.g, opset)
            for value in (*attribute.g.input, *attribute.g.output):
                if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                    value.type.tensor_type.elem_type = TensorProto.FLOAT16


def _fixed_to_float32(node: onnx.NodeProto, opset: int) -> tuple[list[int], list[int]]:
    """Positions of inputs and of outputs that ONNX lets be float32 but not float16."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    inputs = [index for index, name in enumerate(node.input) if name and _only_float32(schema.inputs, index, allowed)]
    outputs = [
        index for index, name in enumerate(node.output) if name and _only_float32(schema.outputs, index, allowed)
    ]
    return inputs, outputs


def _only_float32(parameters: Any, index: int, allowed: dict[str, list[str]]) -> bool:
    """Whether a parameter may be float32 and not float16; the last of a schema may stand for any number of them."""
    kind = parameters[min(index, len(parameters) - 1)].type_str
    types = allowed.get(kind, [kind])
    return _FLOAT in types and _HALF not in types


def _widen_outputs(graph: onnx.GraphProto) -> None:
    """Cast to float32 before the node that makes probabilities, or behind it where it is none of those known."""
    names = {output.name for output in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if not names & set(node.output):
            continue
        if node.op_type in _PROBABILITIES:
            wide = f"{node.input[0]}_float32"
            graph.node.insert(index, helper.make_node("Cast", [node.input[0]], [wide], to=TensorProto.FLOAT))
            node.input[0] = wide
        else:
            narrow, output = f"{node.output[0]}_float16", node.output[0]
            node.output[0] = narrow
            graph.node.insert(index + 1, helper.make_node("Cast", [narrow], [output], to=TensorProto.FLOAT))
