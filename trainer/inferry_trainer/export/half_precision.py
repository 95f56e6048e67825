"""From a float32 graph to one that computes in float16, for GPUs: half the memory traffic, tensor cores.

The images stay uint8 and the probabilities float32: what clients see does not change. The last softmax or
sigmoid is computed in float32, because float16 has no numbers between 0.9995 and 1.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inferry_trainer.errors import ExportError

_LARGEST = 65504.0


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 graph whose weights and inner values are float16.

    Raises:
        ExportError: a weight that float16 cannot hold.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(_rounded(tensor), tensor.name))
    for node in graph.node:
        _retype(node)
    del graph.value_info[:]
    _widen_outputs(graph)
    return half


def _rounded(tensor: onnx.TensorProto) -> NDArray[np.float16]:
    values: NDArray[np.float32] = numpy_helper.to_array(tensor)
    if values.size and not np.abs(values).max() <= _LARGEST:
        raise ExportError(
            f"the weights {tensor.name!r} reach {np.abs(values).max():.3g}; float16 ends at {_LARGEST:g}: "
            "publish float32 instead"
        )
    return values.astype(np.float16)


def _retype(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(_rounded(attribute.t), attribute.t.name))


def _widen_outputs(graph: onnx.GraphProto) -> None:
    """Cast to float32 before the node that makes probabilities, or behind it where it is none of those known."""
    names = {output.name for output in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if not names & set(node.output):
            continue
        if node.op_type in ("Softmax", "Sigmoid"):
            wide = f"{node.input[0]}_float32"
            graph.node.insert(index, helper.make_node("Cast", [node.input[0]], [wide], to=TensorProto.FLOAT))
            node.input[0] = wide
        else:
            narrow, output = f"{node.output[0]}_float16", node.output[0]
            node.output[0] = narrow
            graph.node.insert(index + 1, helper.make_node("Cast", [narrow], [output], to=TensorProto.FLOAT))
