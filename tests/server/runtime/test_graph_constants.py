"""A graph's small constants are read whatever they are written as; its weights are passed over."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from inferry_server.runtime.graph_constants import Constants, read_constants


def model(*nodes: Any, tensors: tuple[Any, ...] = (), functions: tuple[Any, ...] = ()) -> bytes:
    graph = helper.make_graph(list(nodes), "g", [], [], list(tensors))
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], functions=list(functions)).SerializeToString())


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("element_type", "values"),
    [
        (TensorProto.FLOAT, [0.5, -1234.5]),
        (TensorProto.DOUBLE, [1e-300, 2.0]),
        (TensorProto.INT64, [-1, 50_256, -(1 << 62)]),
        (TensorProto.INT32, [-7, 7]),
        (TensorProto.UINT8, [0, 255]),
        (TensorProto.UINT64, [1, 1 << 40]),
    ],
)
def test_numbers_are_found_in_tensors_of_every_encoding(raw: bool, element_type: int, values: list[float]) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    content = np.array(values, dtype).tobytes() if raw else values
    tensor = helper.make_tensor("t", element_type, [len(values)], content, raw=raw)
    assert read_constants(model(tensors=(tensor,))).numbers == tuple(values)
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    assert read_constants(model(constant)).numbers == tuple(values)


def test_attributes_graphs_within_graphs_and_functions_are_looked_into() -> None:
    then = helper.make_graph([helper.make_node("Clip", ["x"], ["y"], max=6.5)], "then", [], [])
    other = helper.make_graph([helper.make_node("Constant", [], ["y"], value_strings=["cat"])], "other", [], [])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    words = helper.make_node("LabelEncoder", ["x"], ["z"], keys_strings=["dog", "hen"], values_int64s=[3, -4])
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [helper.make_node("LeakyRelu", ["a"], ["b"], alpha=0.25)],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    found = read_constants(model(choice, words, functions=(function,)))
    assert set(found.numbers) >= {6.5, 3, -4, 0.25}
    assert set(found.texts) >= {"cat", "dog", "hen"}


def test_weights_and_what_is_not_finite_are_passed_over(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.arange(1 << 16, dtype=np.float32) + 0.5, "w")
    endless = numpy_helper.from_array(np.array([np.inf, np.nan, 3.0], np.float32), "e")
    path = tmp_path / "model.onnx"
    path.write_bytes(model(tensors=(weights, endless)))
    assert read_constants(path) == Constants((3.0,))


def test_there_are_at_most_so_many() -> None:
    nodes = [helper.make_node("Constant", [], [f"c{i}"], value_float=float(i)) for i in range(1000)]
    assert len(read_constants(model(*nodes)).numbers) == 256


@example(noise=b"\x00\x00\x11", place=23)  # a float becomes a number of eight bytes
@given(st.binary(max_size=200), st.integers(0, 60))
def test_bytes_that_are_no_model_are_an_error_or_nothing(noise: bytes, place: int) -> None:
    whole = model(helper.make_node("Clip", ["x"], ["y"], max=6.5))
    for data in (noise, whole[:place] + noise + whole[place:]):
        with contextlib.suppress(ValueError):
            read_constants(data)


def test_the_field_numbers_are_those_of_onnx() -> None:
    assert AttributeProto.DESCRIPTOR.fields_by_name["t"].number == 5
