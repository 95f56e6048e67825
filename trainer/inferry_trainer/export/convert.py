"""From a Keras model to an ONNX graph: uint8 pixels in, probabilities out, any number of images at once."""

import contextlib
import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import onnx
import tensorflow as tf
import tf2onnx

from inferry_trainer.errors import ExportError
from inferry_trainer.evaluation.classifier import Classifier, Outputs, Pixels, every_layer, make_classifier
from inferry_trainer.evaluation.copying import copy_model
from inferry_trainer.export.frozen_graph import freeze_function
from inferry_trainer.export.image_metadata import describe_image_input
from inferry_trainer.export.onnx_graph import (
    fix_output_shape,
    fold_flatten_transposes,
    name_batch_dimension,
    pad_behind_transposed_convolutions,
)
from inferry_trainer.export.onnx_model import INPUT, OUTPUT
from inferry_trainer.export.operations import HANDLERS

# Every ONNX Runtime since 1.12 and TensorRT since 8.6 read it, and it has all that CNNs need,
# per-channel quantization included; a newer one would only shut older servers out.
OPSET = 17


def export_onnx(model: Any, path: Path) -> None:
    """Write a Keras model that takes pixels in [0, 1] as an ONNX graph; see `export_classifier`.

    Raises:
        ExportError: a layer that cannot be converted; nothing is written.
    """
    export_classifier(make_classifier(model), path)


def export_classifier(classifier: Classifier, path: Path) -> None:
    """Write a classifier as an ONNX graph.

    What becomes of uint8 pixels before the first layer, and of outputs behind the last, goes into the
    graph, so that no client can get it wrong.

    Args:
        classifier: from `make_classifier`.
        path: of the file to write: input `images` `(N, H, W, C)` uint8, output `probabilities`
            `(N, K)` float32, `N` free.

    Raises:
        ExportError: a layer that cannot be converted; nothing is written.
    """
    model = classifier.model
    try:
        graph = _convert(replace(classifier, model=_with_static_flatten(model)))
    except Exception as error:  # tf2onnx and Keras raise whatever an unknown layer leads them to
        raise ExportError(f"the model {model.name!r} cannot be converted to ONNX: {error}") from error
    _check_operators(graph, model)
    pad_behind_transposed_convolutions(graph)
    fold_flatten_transposes(graph)
    name_batch_dimension(graph, "N")
    fix_output_shape(graph, classifier.classes)
    describe_image_input(graph)
    path.write_bytes(graph.SerializeToString())


def _convert(classifier: Classifier) -> onnx.ModelProto:
    def infer(images: Any) -> Any:
        return _probabilities(classifier, classifier.model(_scaled(classifier, images), training=False))

    frozen = freeze_function(infer, tf.TensorSpec((None, *classifier.image_shape), tf.uint8, name=INPUT))
    with _silence("tf2onnx", "tensorflow"):  # what the first would say, `_check_operators` finds
        graph, _ = tf2onnx.convert.from_graph_def(
            frozen.definition,
            input_names=[frozen.input],
            output_names=[frozen.output],
            tensors_to_rename={frozen.input: INPUT, frozen.output: OUTPUT},
            custom_op_handlers=HANDLERS,
            opset=OPSET,
        )
    return graph


@contextlib.contextmanager
def _silence(*names: str) -> Iterator[None]:
    """Keep what these loggers say below an outcry to themselves; TensorFlow deprecates what tf2onnx calls."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _scaled(classifier: Classifier, images: Any) -> Any:
    scaled = tf.cast(images, tf.float32)
    if classifier.pixels is Pixels.BYTES:
        return scaled
    scaled = scaled / classifier.pixels.divisor
    return scaled + classifier.pixels.offset if classifier.pixels.offset else scaled


def _probabilities(classifier: Classifier, raw: Any) -> Any:
    """Of every class; for one output of a binary network, of both."""
    if classifier.outputs is Outputs.PROBABILITIES:
        return raw * [[-1.0, 1.0]] + [[1.0, 0.0]] if classifier.is_binary else raw
    return tf.sigmoid(raw * [[-1.0, 1.0]]) if classifier.is_binary else tf.nn.softmax(raw)


def _check_operators(graph: onnx.ModelProto, model: Any) -> None:
    """Raises ExportError for an operation that the converter only copied, which it does where it knows no other way."""
    for node in graph.graph.node:
        if not onnx.defs.has(node.op_type, node.domain):  # guard: convert-operators
            raise ExportError(
                f"the model {model.name!r} cannot be converted to ONNX: TensorFlow's {node.op_type} in {node.name} "
                f"has no counterpart there; use another layer in place of {_layer_of(node.name, model)}"
            )


def _layer_of(node_name: str, model: Any) -> str:
    """The innermost layer that an operation's name leads to; Keras numbers repeated names: `inverse_1`."""
    layers = {layer.name: layer for layer in every_layer(model)}
    for part in reversed(node_name.split("/")):
        layer = layers.get(part) or layers.get(re.sub(r"_\d+$", "", part))
        if layer is not None:
            return f"{layer.name!r} ({type(layer).__name__})"
    return "the one that asks for it"


def _with_static_flatten(model: Any) -> Any:
    """A copy of a model, weights included, whose Flatten layers reshape to a size known now.

    Keras' own asks for the batch size while it runs, which leaves Shape, Gather and Concat in the
    graph: work for every batch, and an obstacle to those who capture graphs. A model without such
    layers, or one that cannot be copied because it is a class of its own, is left as it is.
    """
    if not any(isinstance(layer, keras.layers.Flatten) for layer in every_layer(model)):
        return model

    def reshape(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Flatten):
            return keras.layers.Lambda(_flatten_to(layer.output.shape[1]), name=layer.name)
        return None

    try:
        return copy_model(model, dtype="float32", exchange=reshape)
    except Exception:  # noqa: BLE001 - Keras raises many kinds; the model itself converts as well, only less neatly
        return model


def _flatten_to(size: int) -> Callable[[Any], Any]:
    """A reshape to as many numbers as the tensor has, or, where TensorFlow infers no shape, as Keras says it has."""

    def flatten(tensor: Any) -> Any:
        known = None not in tensor.shape[1:]
        return keras.ops.reshape(tensor, (-1, math.prod(tensor.shape[1:]) if known else size))

    return flatten
