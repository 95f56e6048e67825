"""Examinations of models of one line: whether their rows are independent, by a clock that goes on with each row."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import DATATYPES, Arrays
from inferry_server.models.row_independence import Examination, Finding
from inferry_server.runtime.graph_constants import Constants
from inferry_server.signature import Signature, TensorSpec

Array = NDArray[Any]
FLOAT32 = 2.0**-23


class Clock:
    """Goes on by so many seconds a row of what is run."""

    def __init__(self, row_s: float = 0.0) -> None:
        self.now, self.row_s = 0.0, row_s
        self.rows = 0

    def __call__(self) -> float:
        return self.now

    def ran(self, rows: int) -> None:
        self.rows += rows
        self.now += rows * self.row_s


def spec(name: str, *shape: int, datatype: str = "FP32", axes: tuple[str | None, ...] = ()) -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape, axes)


def judge(
    model: Callable[[Array], Array],
    *,
    shape: tuple[int, ...] = (-1, 4),
    datatype: str = "FP32",
    largest: int = 32,
    precision: float = FLOAT32,
    recorded: Arrays | None = None,
    clock: Clock | None = None,
    budget_s: float = 1.0,
    constants: tuple[float, ...] = (),
) -> Finding:
    ticks = clock or Clock()

    def run(inputs: Arrays) -> Arrays:
        ticks.ran(len(inputs["x"]))
        with np.errstate(all="ignore"):
            return {"y": model(inputs["x"])}

    signature = Signature((spec("x", *shape, datatype=datatype),), (spec("y", *shape, datatype=datatype),))
    return Examination(
        run, signature, largest, precision, recorded, one_batch=False, budget_s=budget_s, clock=ticks,
        constants=Constants(constants),
    ).judge()  # fmt: skip
