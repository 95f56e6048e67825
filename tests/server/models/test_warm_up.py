"""How a model is warmed up: within a budget, and so that the time of its batches is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.datatypes import DATATYPES, Arrays
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.request import ladder
from inferry_server.models.checks import RowsMismatchError, warm_up
from inferry_server.signature import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DATATYPES["UINT8"], (-1, 2)),), outputs=(TensorSpec("y", DATATYPES["UINT8"], (-1, 2)),)
)


class Device:
    """Takes `a + b n` seconds for n rows, and `first_s` more for a size it has not met."""

    def __init__(self, a: float, b: float, *, first_s: float = 0.0) -> None:
        self.a, self.b, self.first_s = a, b, first_s
        self.now = 0.0
        self.sizes: list[int] = []

    def run(self, inputs: Arrays) -> Arrays:
        rows = len(inputs["x"])
        self.now += self.a + self.b * rows + (0.0 if rows in self.sizes else self.first_s)
        self.sizes.append(rows)
        return {"y": inputs["x"]}

    def warm_up(self, max_batch_size: int, *, budget_s: float = 1.0, every_size: bool = False) -> dict[int, float]:
        return warm_up(
            self.run, SIGNATURE, ladder(max_batch_size), batched=True, every_size=every_size, budget_s=budget_s,
            clock=lambda: self.now,
        )  # fmt: skip


def test_a_fast_model_is_warmed_in_every_size_twice() -> None:
    device = Device(0.001, 0.0001)
    assert list(device.warm_up(32)) == [1, 2, 4, 8, 16, 32]
    assert device.sizes == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32]


@given(st.floats(0, 0.1), st.floats(1e-6, 0.1), st.sampled_from([1, 32, 100, 4096]))
def test_warming_up_takes_no_longer_than_twice_its_budget(a: float, b: float, max_batch_size: int) -> None:
    device = Device(a, b)
    device.warm_up(max_batch_size)
    assert device.now <= 2.0 + 1e-9


@given(st.floats(0, 0.1), st.floats(1e-6, 0.1), st.booleans())
def test_what_was_measured_tells_how_long_the_largest_batch_takes(a: float, b: float, every_size: bool) -> None:
    device, latency = Device(a, b, first_s=0.05), LatencyModel(4096)
    for rows, seconds in device.warm_up(4096, every_size=every_size).items():
        latency.observe(rows, seconds)
    assert latency.batch_s(1) == pytest.approx(a + b, rel=0.1)
    assert latency.batch_s(4096) == pytest.approx(a + b * 4096, rel=0.1)


def test_a_device_that_prepares_itself_for_each_size_meets_them_all() -> None:
    device = Device(0.001, 0.01, first_s=2.0)
    measured = device.warm_up(4096, every_size=True)
    assert set(device.sizes) == set(ladder(4096))
    assert sum(measured.values()) <= 1.0
    assert all(seconds == pytest.approx(0.001 + 0.01 * rows) for rows, seconds in measured.items())  # never the first


def test_even_the_slowest_model_shows_its_time_and_its_rows() -> None:
    device = Device(5.0, 1.0)
    assert device.warm_up(4096) == {1: 6.0}
    assert device.sizes == [1, 1, 2]

    def first_row(inputs: Arrays) -> Arrays:
        device.now += 5.0
        return {"y": np.asarray(inputs["x"][:1])}

    with pytest.raises(RowsMismatchError, match=r"for 2 rows"):
        warm_up(first_row, SIGNATURE, ladder(8), batched=True, every_size=False, budget_s=1.0, clock=lambda: device.now)
