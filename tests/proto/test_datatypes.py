import numpy as np
import pytest

from inferry_proto.datatypes import DATATYPES, datatype_of
from inferry_proto.open_inference_pb2 import InferTensorContents


def test_every_datatype_is_found_by_its_dtype() -> None:
    for datatype in DATATYPES.values():
        assert datatype_of(datatype.dtype) is datatype


def test_contents_fields_exist_in_the_protocol() -> None:
    fields = set(InferTensorContents.DESCRIPTOR.fields_by_name)
    assert {d.contents_field for d in DATATYPES.values()} - {None} == fields


def test_a_dtype_the_protocol_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="complex64"):
        datatype_of(np.dtype(np.complex64))
