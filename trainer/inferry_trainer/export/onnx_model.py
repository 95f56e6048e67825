"""An exported graph in ONNX Runtime on the CPU, set up as the server sets it up."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from inferry_proto.cores import available_cores
from inferry_proto.foreign_errors import first_line
from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import ConfigError, GateError

INPUT, OUTPUT = "images", "probabilities"
CPU = "CPUExecutionProvider"
_BATCH_SIZE = 256


class OnnxModel:
    """A graph that takes pictures and gives probabilities. One thread at a time."""

    def __init__(self, session: Any, path: Path) -> None:
        self._session = session
        self.path = path

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        _, height, width, channels = self._session.get_inputs()[0].shape
        return height, width, channels

    @property
    def classes(self) -> int:
        """`K`."""
        return int(self._session.get_outputs()[0].shape[1])

    def check_images(self, images: UInt8Array) -> None:
        """Refuse images that the model does not take.

        Raises:
            ConfigError: another shape.
        """
        if images.shape[1:] != self.image_shape:
            raise ConfigError(f"the model takes images of {self.image_shape}; those given are {images.shape[1:]}")

    def run(self, images: UInt8Array) -> Float32Array:
        """One batch, as it is: `(N, H, W, C)` uint8 to `(N, K)` float32."""
        outputs: Float32Array = self._session.run([OUTPUT], {INPUT: images})[0]
        return outputs

    def predict(self, images: UInt8Array, *, batch_size: int = _BATCH_SIZE) -> Float32Array:
        """Every image's answer, in batches, the last one smaller."""
        return np.concatenate(
            [self.run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        )


def load_onnx_model(path: Path) -> OnnxModel:
    """Load a graph and check that it takes and gives what an export promises.

    Raises:
        GateError: `signature`: ONNX Runtime refuses it, or it has other inputs or outputs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(path), options, providers=[CPU])
    except Exception as error:  # raises its own kinds, by no common name
        raise GateError("signature", f"the graph does not run in ONNX Runtime: {first_line(error)}") from error
    _check_signature(session)
    return OnnxModel(session, path)


def _check_signature(session: Any) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = [(value.name, value.type) for value in (*inputs, *outputs)]
    expected = [(INPUT, "tensor(uint8)"), (OUTPUT, "tensor(float)")]
    if found != expected:
        raise GateError("signature", f"the graph has inputs and outputs {found}; expected {expected}")
    for value in (*inputs, *outputs):
        if not value.shape or isinstance(value.shape[0], int):
            raise GateError(
                "signature", f"the graph's {value.name!r} takes batches of {value.shape[0]} only; expected any size"
            )
    if any(not isinstance(axis, int) for axis in (*inputs[0].shape[1:], *outputs[0].shape[1:])):
        raise GateError(
            "signature",
            f"the graph takes {inputs[0].shape} and gives {outputs[0].shape}; expected every axis but the first fixed",
        )
