from typing import Any

import hypothesis.extra.numpy as hypothesis_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inferry_client.messages.tensors import decode_contents, decode_tensor, encode_tensor, tensor_datatype
from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import InferTensorContents

NUMERIC = [datatype for datatype in DATATYPES.values() if datatype.dtype.kind not in "OV"]
SHAPES = hypothesis_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(st.data(), st.sampled_from(NUMERIC), st.sampled_from("<>"))
def test_decoding_undoes_encoding_for_every_numeric_datatype_and_byte_order(
    data: st.DataObject, datatype: Any, order: str
) -> None:
    array = data.draw(hypothesis_numpy.arrays(datatype.dtype.newbyteorder(order), SHAPES))
    decoded = decode_tensor(encode_tensor(array), tensor_datatype(array).name, array.shape)
    assert decoded.dtype == datatype.dtype
    np.testing.assert_array_equal(decoded, array)


@given(hypothesis_numpy.arrays(object, SHAPES, elements=st.binary(max_size=9)))
def test_decoding_undoes_encoding_for_bytes(array: NDArray[Any]) -> None:
    decoded = decode_tensor(encode_tensor(array), "BYTES", array.shape)
    assert decoded.shape == array.shape
    assert decoded.tolist() == array.tolist()


@given(st.sampled_from([d for d in DATATYPES.values() if d.contents_field]), st.data())
def test_typed_contents_are_read_like_raw_ones(datatype: Any, data: st.DataObject) -> None:
    elements = st.binary(max_size=5) if datatype.name == "BYTES" else None
    array = data.draw(hypothesis_numpy.arrays(datatype.dtype, SHAPES, elements=elements))
    contents = InferTensorContents(**{datatype.contents_field: array.ravel().tolist()})
    np.testing.assert_array_equal(decode_contents(contents, datatype.name, array.shape), array)


def test_arrays_with_any_strides_are_sent_row_major() -> None:
    array = np.arange(24, dtype=np.int16).reshape(4, 6).T[::2]
    np.testing.assert_array_equal(decode_tensor(encode_tensor(array), "INT16", array.shape), array)


def test_text_is_sent_as_utf8_bytes() -> None:
    assert encode_tensor(np.array(["é"])) == b"\x02\0\0\0\xc3\xa9"


@pytest.mark.parametrize(
    ("data", "datatype", "named"),
    [
        (b"\0" * 7, "FP32", "7 bytes came; FP32 of shape \\[2\\] has 8"),
        (b"\x01\0\0\0a", "BYTES", "1 elements of BYTES came; expected 2"),
        (b"\x01\0\0\0a\x09\0\0\0b", "BYTES", "inside element 1"),
        (b"\x01\0\0\0a\x09\0", "BYTES", "inside the length of element 1"),
        (b"", "FP8", "'FP8' is not known"),
    ],
)
def test_raw_contents_that_do_not_fit_are_named(data: bytes, datatype: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        decode_tensor(data, datatype, (2,))


def test_an_element_that_is_no_bytes_is_named() -> None:
    with pytest.raises(ValueError, match="is a int; expected bytes or str"):
        encode_tensor(np.array([b"a", 3], dtype=object))
