"""From a Keras model to an ONNX graph: uint8 pixels in, probabilities out, any number of images at once."""

import logging
import math
from pathlib import Path
from typing import Any

import keras
import onnx
import tensorflow as tf
import tf2onnx

from inferry_trainer.errors import ExportError
from inferry_trainer.onnx_graph import fold_flatten_transposes, name_batch_dimension
from inferry_trainer.pixels import PIXEL_MAX

INPUT, OUTPUT = "images", "probabilities"

# Every ONNX Runtime since 1.12 and TensorRT since 8.6 read it, and it has all that CNNs need,
# per-channel quantization included; a newer one would only shut older servers out.
OPSET = 17


def export_onnx(model: Any, path: Path) -> None:
    """Write a Keras model as an ONNX graph.

    The scale from uint8 to [0, 1] goes into the graph, so that no client can get it wrong.

    Args:
        model: takes `(N, H, W, C)` float32 in [0, 1], gives `(N, K)` probabilities.
        path: of the file to write: input `images` `(N, H, W, C)` uint8, output `probabilities`
            `(N, K)` float32, `N` free.

    Raises:
        ExportError: a layer that cannot be converted; nothing is written.
    """
    try:
        inference_model = _with_static_flatten(model)
        graph = _convert(inference_model)
    except Exception as error:  # tf2onnx and Keras raise whatever an unknown layer leads them to
        raise ExportError(f"the model {model.name!r} cannot be converted to ONNX: {error}") from error
    _check_operators(graph, model.name)
    fold_flatten_transposes(graph)
    name_batch_dimension(graph, "N")
    path.write_bytes(graph.SerializeToString())


def _convert(model: Any) -> onnx.ModelProto:
    shape = (None, *model.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name=INPUT)])  # type: ignore[untyped-decorator]
    def infer(images: Any) -> dict[str, Any]:
        return {OUTPUT: model(tf.cast(images, tf.float32) / PIXEL_MAX, training=False)}

    # from_keras does not know Keras 3's tensors; from_function sees only TensorFlow's operations.
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL)  # what it would say, `_check_operators` finds
    try:
        graph, _ = tf2onnx.convert.from_function(infer, input_signature=infer.input_signature, opset=OPSET)
    finally:
        logger.setLevel(before)
    return graph


def _check_operators(graph: onnx.ModelProto, name: str) -> None:
    """Raises ExportError for an operation that the converter only copied, which it does where it knows no other way."""
    for node in graph.graph.node:
        if not onnx.defs.has(node.op_type, node.domain):
            raise ExportError(
                f"the model {name!r} cannot be converted to ONNX: TensorFlow's {node.op_type} in {node.name} has no "
                "counterpart there; use another layer"
            )


def _with_static_flatten(model: Any) -> Any:
    """A copy of a model, weights included, whose Flatten layers reshape to a size known now.

    Keras' own asks for the batch size while it runs, which leaves Shape, Gather and Concat in the
    graph: work for every batch, and an obstacle to those who capture graphs.
    """

    def clone(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Flatten):
            return keras.layers.Lambda(
                lambda tensor: keras.ops.reshape(tensor, (-1, math.prod(tensor.shape[1:]))), name=layer.name
            )
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy
