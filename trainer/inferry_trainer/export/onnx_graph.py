"""Small rewrites of an exported graph that leave its results as they are."""

import math

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

_NCHW_TO_NHWC = [0, 2, 3, 1]


def name_batch_dimension(model: onnx.ModelProto, name: str) -> None:
    """Give the first axis of every input and output the same name, and drop opsets that nothing uses."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = name
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def fix_output_shape(model: onnx.ModelProto, classes: int) -> None:
    """Say that every image gets `classes` numbers, where the converter could not infer it."""
    for output in model.graph.output:
        axes = output.type.tensor_type.shape.dim
        if len(axes) == 2 and not axes[1].dim_value:
            axes[1].dim_value = classes


def pad_behind_transposed_convolutions(model: onnx.ModelProto) -> None:
    """Let transposed convolutions that give more rows or columns than their kernels reach add these behind.

    The converter writes negative paddings, half of them in front; ONNX knows none, and TensorFlow adds behind only.
    """
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "ConvTranspose" or "pads" not in attributes:
            continue
        pads = list(attributes["pads"].ints)
        axes = len(pads) // 2
        more = [max(0, -(pads[axis] + pads[axes + axis])) for axis in range(axes)]
        if not any(more):
            continue
        for axis in range(axes):
            if more[axis]:
                pads[axis] = pads[axes + axis] = 0  # guard: convert-pads-behind
        attributes["pads"].ints[:] = pads
        node.attribute.append(onnx.helper.make_attribute("output_padding", more))


def fold_flatten_transposes(model: onnx.ModelProto) -> None:
    """Reorder the rows of dense kernels so that features can be flattened as convolutions leave them.

    Keras flattens NHWC, ONNX convolves NCHW: the converter turns every image's features around
    between the two. Turning the kernel around once, here, gives the same sums.
    """
    graph = model.graph
    shapes = _static_shapes(model)
    kernels = {tensor.name: tensor for tensor in graph.initializer}
    for transpose in [node for node in graph.node if node.op_type == "Transpose"]:
        reshape = _only_consumer(graph, transpose.output[0], "Reshape")
        if reshape is None or _permutation(transpose) != _NCHW_TO_NHWC:
            continue
        matmul = _only_consumer(graph, reshape.output[0], "MatMul")
        shape = shapes.get(transpose.input[0])
        if matmul is None or shape is None or matmul.input[1] not in kernels:
            continue
        kernel = kernels[matmul.input[1]]
        if kernel.dims[0] != math.prod(shape) or _only_consumer(graph, kernel.name, "MatMul") is None:
            continue
        if numpy_helper.to_array(kernels[reshape.input[1]]).tolist() != [-1, kernel.dims[0]]:
            continue
        kernel.CopyFrom(_reorder_rows(kernel, shape))
        reshape.input[0] = transpose.input[0]
        graph.node.remove(transpose)


def _reorder_rows(kernel: onnx.TensorProto, shape: tuple[int, int, int]) -> onnx.TensorProto:
    """A dense kernel `(HWC, K)` for features that come as `(C, H, W)`."""
    channels, height, width = shape
    rows = np.arange(kernel.dims[0]).reshape(height, width, channels).transpose(2, 0, 1).ravel()
    return numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(kernel)[rows]), kernel.name)


def _static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, int, int]]:
    """Shapes `(C, H, W)` of the values that have three known axes behind the batch."""
    found = {}
    for value in shape_inference.infer_shapes(model).graph.value_info:
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]]
        if len(sizes) == 3 and all(sizes):
            found[value.name] = (sizes[0], sizes[1], sizes[2])
    return found


def _only_consumer(graph: onnx.GraphProto, value: str, op_type: str) -> onnx.NodeProto | None:
    consumers = [node for node in graph.node if value in node.input]
    is_output = any(output.name == value for output in graph.output)
    return consumers[0] if len(consumers) == 1 and not is_output and consumers[0].op_type == op_type else None


def _permutation(transpose: onnx.NodeProto) -> list[int]:
    return [axis for attribute in transpose.attribute if attribute.name == "perm" for axis in attribute.ints]
