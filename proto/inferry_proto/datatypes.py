"""The Open Inference Protocol's tensor datatypes and what they are in NumPy and on the wire."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto import model_config_pb2

Arrays = Mapping[str, NDArray[Any]]
"""Tensors by name."""


@dataclass(frozen=True)
class Datatype:
    """One datatype of the protocol.

    Attributes:
        name: as in requests and metadata (`FP32`).
        dtype: little-endian; `object` for BYTES, whose elements are `bytes`; two opaque bytes for
            BF16, which NumPy has no type for.
        config_type: the number that ModelConfig uses for it.
        contents_field: the field of InferTensorContents that carries it; None where the
            protocol has none and only raw contents are possible.
    """

    name: str
    dtype: np.dtype[np.generic]
    config_type: model_config_pb2.DataType
    contents_field: str | None


def _datatype(name: str, dtype: str, config_type: model_config_pb2.DataType, contents_field: str | None) -> Datatype:
    return Datatype(name, np.dtype(dtype), config_type, contents_field)


DATATYPES: dict[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        _datatype("BOOL", "?", model_config_pb2.TYPE_BOOL, "bool_contents"),
        _datatype("UINT8", "u1", model_config_pb2.TYPE_UINT8, "uint_contents"),
        _datatype("UINT16", "<u2", model_config_pb2.TYPE_UINT16, "uint_contents"),
        _datatype("UINT32", "<u4", model_config_pb2.TYPE_UINT32, "uint_contents"),
        _datatype("UINT64", "<u8", model_config_pb2.TYPE_UINT64, "uint64_contents"),
        _datatype("INT8", "i1", model_config_pb2.TYPE_INT8, "int_contents"),
        _datatype("INT16", "<i2", model_config_pb2.TYPE_INT16, "int_contents"),
        _datatype("INT32", "<i4", model_config_pb2.TYPE_INT32, "int_contents"),
        _datatype("INT64", "<i8", model_config_pb2.TYPE_INT64, "int64_contents"),
        _datatype("FP16", "<f2", model_config_pb2.TYPE_FP16, None),
        _datatype("BF16", "V2", model_config_pb2.TYPE_BF16, None),
        _datatype("FP32", "<f4", model_config_pb2.TYPE_FP32, "fp32_contents"),
        _datatype("FP64", "<f8", model_config_pb2.TYPE_FP64, "fp64_contents"),
        _datatype("BYTES", "O", model_config_pb2.TYPE_STRING, "bytes_contents"),
    )
}


def datatype_of(dtype: np.dtype[np.generic]) -> Datatype:
    """The protocol's datatype of a NumPy dtype.

    Raises:
        ValueError: the protocol has none for it.
    """
    for datatype in DATATYPES.values():
        if datatype.dtype == dtype:
            return datatype
    known = ", ".join(str(datatype.dtype) for datatype in DATATYPES.values())
    raise ValueError(f"the protocol has no datatype for NumPy's {dtype}; it has them for {known}")
