"""BF16 tensors: ONNX Runtime computes with them, and NumPy has no type for them.

The server keeps them as arrays of two opaque bytes an element, as requests carry them; nothing between the wire and
ONNX Runtime reads these bytes.
"""

import ctypes
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

_ONNX_BFLOAT16 = 16  # TensorProto.DataType, in ONNX's own numbers


def to_ort_value(array: NDArray[Any], *, bfloat16: bool) -> onnxruntime.OrtValue:
    """A tensor as ONNX Runtime takes it; it views the array, which must live as long."""
    if not bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def from_ort_value(value: onnxruntime.OrtValue, *, dtype: np.dtype[Any], bfloat16: bool) -> NDArray[Any]:
    """A tensor that ONNX Runtime returned, as an array of its own."""
    if not bfloat16:
        return np.asarray(value.numpy())
    size = value.tensor_size_in_bytes()
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(data, dtype).reshape(value.shape())
