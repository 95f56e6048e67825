"""From a float32 graph to one that computes in int8: quantized and dequantized (QDQ) around every kernel.

Weights get a scale a channel and 7 bits: processors without VNNI add pairs of products in 16 bits, which 8-bit
weights overflow, and a model should answer alike wherever it runs. Activations are uint8; their ranges come from
training images only. Which way of choosing ranges is taken is decided on training images too: the test set
judges the result, once.
"""

import contextlib
import hashlib
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import shape_inference
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from inferry_proto import manifest_pb2
from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import ExportError
from inferry_trainer.export.onnx_model import INPUT, load_onnx_model

LEAST_IMAGES = 32
_CALIBRATING = 512  # more did not move MNIST's ranges
_JUDGING = 512
_BATCH = LEAST_IMAGES
_MEMORY_BYTES = 2 << 30  # histograms keep every activation of the calibration images
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
# The rest (softmax, sigmoid, ...) stays in float32: it takes no time and loses most.
_OPERATORS = ["Conv", "MatMul", "Gemm", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip", "Add", "Reshape"]
_KERNELS = {"Conv", "ConvTranspose", "MatMul", "Gemm", "MaxPool", "AveragePool", "GlobalAveragePool"}


@dataclass(frozen=True)
class QuantizedGraph:
    """An int8 graph and how its ranges were found."""

    model: onnx.ModelProto
    quantization: manifest_pb2.Quantization


def quantize_int8(float_graph: Path, images: UInt8Array) -> QuantizedGraph:
    """Quantize a float32 graph.

    Args:
        float_graph: an exported graph.
        images: `(N, H, W, C)` uint8 training images, shuffled: the first of them calibrate, the next choose
            between ways of calibrating. At least 32.

    Raises:
        ExportError: too few images, or ONNX Runtime cannot quantize the graph.
    """
    if len(images) < LEAST_IMAGES:
        raise ExportError(f"int8 needs at least {LEAST_IMAGES} training images to calibrate with; {len(images)} came")
    count = min(_CALIBRATING, max(len(images) // 2, LEAST_IMAGES), _affordable(float_graph))
    calibrating = images[: count - count % _BATCH]  # the quantizer stacks its batches: all must be of one size
    judging = images[len(calibrating) :][:_JUDGING]
    judging = judging if len(judging) else calibrating
    expected = load_onnx_model(float_graph).predict(judging)
    variants = {name: _quantize(float_graph, calibrating, method) for name, method in _METHODS.items()}
    name = min(variants, key=lambda name: np.abs(_answers(variants[name], judging) - expected).mean())
    model = variants[name]
    digest = hashlib.sha256(f"{calibrating.shape}".encode() + np.ascontiguousarray(calibrating).tobytes()).hexdigest()
    return QuantizedGraph(
        model,
        manifest_pb2.Quantization(
            calibration_method=name,
            calibration_images=len(calibrating),
            calibration_sha256=digest,
            float_nodes=_float_nodes(model),
        ),
    )


def _quantize(source: Path, images: UInt8Array, method: CalibrationMethod) -> onnx.ModelProto:
    try:
        with _silence(), tempfile.TemporaryDirectory(prefix="inferry-int8-") as folder:
            target = Path(folder) / "model.onnx"
            quantize_static(
                str(source),
                str(target),
                _Reader(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_OPERATORS,
                nodes_to_exclude=_kept_in_float(onnx.load(source)),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=method,
            )
            return onnx.load(target)
    except Exception as error:  # raises whatever a graph it does not know leads it to
        raise ExportError(f"the graph cannot be quantized to int8: {error}") from error


def _kept_in_float(model: onnx.ModelProto) -> list[str]:
    """Names of nodes that int8 would harm and hardly speed up.

    They are those behind the last kernels, which make probabilities of what these give and are no more than a few
    numbers an image, and products whose first factor is the constant one: resizing, whose weights are no channel's.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = {node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[0] in constants}
    waiting = [output.name for output in model.graph.output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.op_type not in _KERNELS and node.name not in kept:
            kept.add(node.name)
            waiting += node.input
    return sorted(kept)


def _answers(model: onnx.ModelProto, images: UInt8Array) -> Float32Array:
    with tempfile.TemporaryDirectory(prefix="inferry-int8-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return load_onnx_model(path).predict(images)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """Gives the calibration images, a batch at a time."""

    def __init__(self, images: UInt8Array) -> None:
        self._batches = iter([{INPUT: images[start : start + _BATCH]} for start in range(0, len(images), _BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The quantizer prints its progress, and advises steps that were taken already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _affordable(graph: Path) -> int:
    """How many images' activations fit into memory at once; never fewer than make sense."""
    values = 0
    for value in shape_inference.infer_shapes(onnx.load(graph)).graph.value_info:
        values += int(np.prod([axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim], dtype=np.int64))
    return max(LEAST_IMAGES, _MEMORY_BYTES // (4 * max(values, 1)))


def _float_nodes(model: onnx.ModelProto) -> list[str]:
    """Nodes that compute in floating point: neither between integers nor the conversions themselves."""
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast")
        and not all(value in dequantized for value in node.input[:1])
    ]
