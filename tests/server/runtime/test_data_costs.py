"""Whether values of a request decide how long its model computes, told from the file."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inferry_server.runtime.data_costs import what_data_decides
from inferry_server.runtime.graph_nodes import Node, _node, read_nodes

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
NODE = helper.make_node


def decided(tmp_path: Path, nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = (),
            functions: Sequence[onnx.FunctionProto] = ()) -> str | None:  # fmt: skip
    graph = helper.make_graph(list(nodes), "graph", [X], [Y], list(constants))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=functions), path)
    return what_data_decides(read_nodes(path), ["x"])


def a_graph(output: str = "b") -> onnx.GraphProto:
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph([NODE("Identity", ["x"], [output])], "branch", [], [value])


TEN = numpy_helper.from_array(np.array([10], np.int64), "ten")
FLAT = numpy_helper.from_array(np.array([0, -1], np.int64), "flat")


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ([NODE("If", ["c"], ["y"], then_branch=a_graph(), else_branch=a_graph())], "If"),
        ([NODE("Loop", ["ten", "c", "x"], ["y"], body=a_graph())], "Loop"),
        ([NODE("Relu", ["x"], ["h"]), NODE("Scan", ["h"], ["y"], body=a_graph(), num_scan_inputs=1)], "Scan"),
        ([NODE("Cast", ["x"], ["n"], to=TensorProto.INT64), NODE("Range", ["zero", "n", "one"], ["y"])], "Range"),
        ([NODE("NonZero", ["x"], ["y"])], "NonZero"),
        ([NODE("ReduceMax", ["x"], ["m"]), NODE("Cast", ["m"], ["k"], to=7), NODE("TopK", ["x", "k"], ["y", "i"])],
         "TopK"),
        ([NODE("Cast", ["x"], ["shape"], to=TensorProto.INT64), NODE("ConstantOfShape", ["shape"], ["y"])],
         "ConstantOfShape"),
        ([NODE("Cast", ["x"], ["times"], to=TensorProto.INT64), NODE("Tile", ["x", "times"], ["y"])], "Tile"),
        ([NODE("Resize", ["x", "", "", "x"], ["y"])], "Resize"),
        ([NODE("Anything", ["x"], ["y"], domain="own")], "Anything"),
        ([NODE("GreedySearch", ["x"], ["y"], domain="com.microsoft")], "GreedySearch"),
    ],
)  # fmt: skip
def test_an_operator_that_does_as_much_as_the_data_says_is_named(
    tmp_path: Path, nodes: Sequence[onnx.NodeProto], named: str
) -> None:
    reason = decided(tmp_path, nodes, [TEN])
    assert reason is not None
    assert f"operator {named!r}" in reason


@pytest.mark.parametrize(
    "nodes",
    [
        [NODE("Relu", ["x"], ["h"]), NODE("Reshape", ["h", "flat"], ["y"])],
        [NODE("Shape", ["x"], ["s"]), NODE("Gather", ["s", "ten"], ["g"]), NODE("Expand", ["x", "s"], ["y"])],
        [NODE("Relu", ["x"], ["h"]), NODE("Shape", ["h"], ["s"]), NODE("ConstantOfShape", ["s"], ["y"])],
        [NODE("TopK", ["x", "ten"], ["y", "i"])],
        [NODE("Relu", ["x"], ["h"]), NODE("Resize", ["h", "", "scales"], ["y"])],
        [NODE("Gelu", ["x"], ["h"], domain="com.microsoft"), NODE("Scaler", ["h"], ["y"], domain="ai.onnx.ml")],
    ],
)
def test_shapes_and_constants_decide_for_a_usual_network(tmp_path: Path, nodes: Sequence[onnx.NodeProto]) -> None:
    assert decided(tmp_path, nodes, [TEN, FLAT]) is None


def test_a_function_of_the_file_is_looked_into(tmp_path: Path) -> None:
    body = [NODE("Range", ["a", "b", "c"], ["r"])]
    function = helper.make_function("own", "Ranger", ["a", "b", "c"], ["r"], body, [helper.make_opsetid("", 17)])
    assert decided(tmp_path, [NODE("Relu", ["x"], ["y"])], functions=[function]) is not None


NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


@given(NAMES, NAMES.filter(lambda name: name != "ai.onnx"), st.lists(NAMES, max_size=4), st.lists(NAMES, max_size=4))
def test_nodes_are_read_as_onnx_reads_them(op: str, domain: str, inputs: list[str], outputs: list[str]) -> None:
    node = helper.make_node(op, inputs, outputs, domain=domain, doc_string="text", number=3, list_of=[1.0, 2.0])
    assert _node(node.SerializeToString()) == Node(op, domain, tuple(inputs), tuple(outputs), has_graph=False)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_model_are_a_value_error_or_nodes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.onnx"
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
        assert all(isinstance(node.op_type, str) for node in itertools.islice(read_nodes(path), 1000))
