"""ONNX graphs drawn at random: odd first axes, ranks, names and free lengths; rows, time steps, or neither.

Each is a chain of a few steps. Most steps treat every row by itself, some mix along an axis, and some of these mix
along the first one; whether a graph's rows are independent is not recorded, for a test must not need to know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 10
_FIRST = ("N", "batch", "time", "seq_len", "n_nodes", "unk__3", None, "a b", "N", "ö", 1, 3)
_INNER = (4, 4, 1, 3, "L", "width", None)
_INDEXES = {TensorProto.INT64, TensorProto.INT32}


@dataclass(frozen=True)
class RandomGraph:
    """One model, and inputs that it takes.

    Attributes:
        name: of its folder.
        inputs: for a number of rows, by name; where its first axis is fixed, they have that.
        text: what it consists of.
    """

    name: str
    model: onnx.ModelProto
    inputs: Callable[[int, np.random.Generator], dict[str, NDArray[Any]]]
    text: str

    def save(self, repository: Path) -> None:
        """Write it as the first version of a model."""
        path = repository / self.name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(self.model, path)


class _Builder:
    """Appends steps to a chain that begins with the tensor `x`."""

    def __init__(self, random: np.random.Generator, rank: int, width: int | None) -> None:
        self.random = random
        self.rank = rank
        self.width = width  # of the last axis, where it is fixed
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.words: list[str] = []
        self.last = "x"

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def step(self, axis: int) -> None:
        """One more step; those along an axis take the one that is given."""
        kinds = [self.pointwise, self.pointwise, self.along, self.weighted, self.reduced, self.chosen]
        kind = kinds[self.random.integers(len(kinds))]
        self.words.append(f"{kind.__name__} {axis}")
        kind(axis)

    def pointwise(self, axis: int) -> None:
        match self.random.integers(4):
            case 0:
                self.last = self.node(str(self.random.choice(["Relu", "Tanh", "Sigmoid", "Neg", "Abs"])), self.last)
            case 1:
                self.last = self.node("Mul", self.last, self.constant(self.random.normal()))
            case 2:
                self.last = self.node("Add", self.last, self.constant(self.random.normal()))
            case _:
                self.last = self.node("Clip", self.last, self.constant(-2), self.constant(2))

    def along(self, axis: int) -> None:
        match self.random.integers(4):
            case 0:
                self.last = self.node("CumSum", self.last, self.constant(axis, np.int64))
            case 1:
                self.last = self.node("Softmax", self.last, axis=axis)
            case 2:
                ends = [self.constant([value], np.int64) for value in (-1, -(1 << 40), axis, -1)]
                self.last = self.node("Slice", self.last, *ends)
            case _:
                mean = self.node("ReduceMean", self.last, axes=[axis], keepdims=1)
                self.last = self.node("Sub", self.last, mean)

    def weighted(self, axis: int) -> None:
        if self.width is None or self.rank < 2:
            self.pointwise(axis)
            return
        weights = self.random.normal(size=(self.width, self.width)) / self.width
        self.last = self.node("MatMul", self.last, self.constant(weights))

    def reduced(self, axis: int) -> None:
        """Something of all along an axis, added where the values are large."""
        most = self.node(str(self.random.choice(["ReduceMax", "ReduceMin"])), self.last, axes=[axis], keepdims=1)
        large = self.node("Greater", self.last, self.constant(self.random.choice([-1.0, 0.0, 0.5])))
        self.last = self.node("Where", large, most, self.last)

    def chosen(self, axis: int) -> None:
        """Divided by the length of an axis."""
        length = self.node("Gather", self.node("Shape", self.last), self.constant(axis, np.int64))
        self.last = self.node("Div", self.last, self.node("Cast", length, to=TensorProto.FLOAT))


def random_graph(seed: int) -> RandomGraph:
    """The graph of a seed; the same one always."""
    random = np.random.default_rng(seed)
    rank = int(random.choice([1, 2, 2, 2, 3, 4]))
    shape = [_FIRST[random.integers(len(_FIRST))], *(_INNER[random.integers(len(_INNER))] for _ in range(rank - 1))]
    element = int(random.choice([TensorProto.FLOAT] * 5 + [TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8]))
    width = shape[-1] if rank > 1 and isinstance(shape[-1], int) else None
    builder = _Builder(random, rank, width)
    if element != TensorProto.FLOAT:
        builder.last = builder.node("Cast", "x", to=TensorProto.FLOAT)
    for _ in range(random.integers(1, 5)):
        builder.step(int(random.integers(1, rank)) if rank > 1 and random.random() < 0.7 else 0)
    values = [helper.make_tensor_value_info("x", element, shape)]
    second = shape[:1]
    if random.random() < 0.25:  # an input more, whose first axis has the same name, or another, or the same without one
        if random.random() < 0.4 and isinstance(shape[0], str):
            second = [shape[0] + " of another"]
        values.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [*second, *[1] * (rank - 1)]))
        builder.last = builder.node("Add", builder.last, "w")
        builder.words.append(f"w {second}")
    given = shape[:1] if random.random() < 0.8 else [str(random.choice(["M", "num_dets"]))]
    if isinstance(shape[0], int):
        given = shape[:1]
    outputs = [helper.make_tensor_value_info(builder.last, TensorProto.FLOAT, [*given, *[None] * (rank - 1)])]
    if random.random() < 0.2 and rank > 1:
        label = builder.node("ArgMax", builder.last, axis=int(random.integers(0, rank)), keepdims=1)
        outputs.append(helper.make_tensor_value_info(label, TensorProto.INT64, [None] * rank))
    graph = helper.make_graph(builder.nodes, "random", values, outputs, builder.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return RandomGraph(
        f"g{seed}", model, _inputs(shape, element, len(values) > 1), f"{shape} -> {given}: {', '.join(builder.words)}"
    )


def _inputs(
    shape: Sequence[int | str | None], element: int, two: bool
) -> Callable[[int, np.random.Generator], dict[str, NDArray[Any]]]:
    def make(rows: int, random: np.random.Generator) -> dict[str, NDArray[Any]]:
        lengths: dict[int | str | None, int] = {}
        axes = [
            axis if isinstance(axis, int) else lengths.setdefault(axis, int(random.integers(2, 4))) for axis in shape
        ]
        if not isinstance(shape[0], int):
            axes[0] = rows
        dtype = helper.tensor_dtype_to_np_dtype(element)
        x = random.normal(size=axes) * 2 if element == TensorProto.FLOAT else random.integers(0, 9, axes)
        made = {"x": np.asarray(x, dtype)}
        if two:
            made["w"] = random.normal(size=[axes[0], *[1] * (len(axes) - 1)]).astype(np.float32)
        return made

    return make
