"""What a Keras model takes its pixels to be, as far as its first layers tell.

A model that scales its own pixels, with a `Rescaling` or `Normalization` layer, by an operation or in a layer of
somebody's own, must get them as they are. It is asked: what do 255 levels become before its first kernel?
"""

from typing import Any

import keras
import numpy as np

from inferry_trainer.errors import ConfigError
from inferry_trainer.evaluation.classifier import Pixels

# Networks are trained on values of about 1: [0, 1], [-1, 1], or a standard deviation of 1. 255 levels that become
# this little or less were scaled; those of a picture in [0, 1] would be a hundredth of it then.
_LARGEST_SPAN = 8.0
_HALF = (0.25, 0.75)  # where the middle level lies, if levels are scaled and not squashed or cut


def decide_pixels(model: Any, given: Pixels | None) -> tuple[Pixels, str]:
    """What to take a model's pixels to be, and why.

    Args:
        model: of a classifier.
        given: what the user says; None asks the model.

    Raises:
        ConfigError: the user says what the model contradicts.
    """
    why = _why_bytes(model)
    if given is None:
        if why:
            return Pixels.BYTES, f"{why}; --pixels 0-255 would say the same"
        return Pixels.UNIT, "nothing in the model scales them; if it was trained on others, say so with --pixels"
    if why and given is not Pixels.BYTES:  # guard: pixels-scaled-twice
        raise ConfigError(
            f"--pixels {given.value} would scale pixels twice: {why}; leave --pixels out, or say --pixels 0-255"
        )
    return given, "as --pixels says"


def _why_bytes(model: Any) -> str:
    """Why a model takes 0-255; empty where nothing tells."""
    inputs = getattr(model, "inputs", None)  # a model that is a class of its own may have none
    dtype = str(keras.backend.standardize_dtype(inputs[0].dtype)) if inputs else ""
    if "int" in dtype:
        return f"the model's input is {dtype}"
    span = _span_before_weights(model)
    if span is None or not 0 < span <= _LARGEST_SPAN:
        return ""
    return f"the model scales its own pixels: before its first kernel, levels 0 to 255 span {span:.3g}"


def _span_before_weights(model: Any) -> float | None:
    """How far apart black and white are before the first kernel; None where that says nothing."""
    levels = np.array([0, 128, 255], np.float32)
    shape = model.input_shape[1:]
    try:
        pictures = np.broadcast_to(levels.reshape(-1, *(1,) * len(shape)), (len(levels), *shape))
        black, grey, white = np.asarray(_before_first_kernel(model, keras.ops.convert_to_tensor(pictures)), np.float64)
    except Exception:  # noqa: BLE001 - Keras and layers of somebody's own raise what they like; nothing is known then
        return None
    spans = np.abs(white - black)
    widest = np.unravel_index(spans.argmax(), spans.shape)
    span = float(spans[widest])
    if not np.isfinite(span) or span == 0:
        return None
    share = float((grey - black)[widest] / (white - black)[widest])
    return span if _HALF[0] < share < _HALF[1] else None


def _before_first_kernel(model: Any, values: Any) -> Any:
    """What a model's first layer with a kernel, however deep in models within it, is given."""
    graph = getattr(model, "_functional", None) or model  # a Sequential keeps its graph to itself
    for operation in graph.operations:
        if not _has_kernel(operation):
            continue
        nodes = (node for level in graph._nodes_by_depth.values() for node in level)
        given = next(node for node in nodes if node.operation is operation).input_tensors[0]
        reached = keras.Function(graph.inputs[0], given)(values)
        return _before_first_kernel(operation, reached) if isinstance(operation, keras.Model) else reached
    return graph(values, training=False)


def _has_kernel(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer) and any(len(weight.shape) > 1 for weight in operation.weights)
