"""What is learned of a device, from bare numbers and through a batcher that runs on one."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.datatypes import Arrays
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import InferenceRequest
from inferry_server.errors import DeadlineExceededError
from inferry_server.executing.batcher import DynamicBatcher
from testkit.batchers import Observer, Reply

A, B = 0.002, 0.0005


def learn(model: LatencyModel, a: float, b: float, batches: int, *, noise: float = 0.05, seed: int = 1) -> None:
    randomness = random.Random(seed)
    for _ in range(batches):
        rows = randomness.randint(1, 32)
        model.observe(rows, (a + b * rows) * randomness.gauss(1, noise))


@pytest.mark.parametrize("seed", range(20))
def test_after_two_hundred_batches_both_are_found_within_ten_percent_and_follow_a_change(seed: int) -> None:
    model = LatencyModel(32)
    learn(model, A, B, 200, seed=seed)
    assert model.a == pytest.approx(A, rel=0.1)
    assert model.b == pytest.approx(B, rel=0.1)
    learn(model, 3 * A, B / 2, 200, seed=seed)
    assert model.a == pytest.approx(3 * A, rel=0.1)
    assert model.b == pytest.approx(B / 2, rel=0.1)


def test_nothing_is_claimed_before_anything_was_measured() -> None:
    assert LatencyModel(32).total_s(1000, largest=32) == 0


def test_batches_of_one_size_do_not_make_it_forget_the_other_sizes() -> None:
    model = LatencyModel(32)
    learn(model, A, B, 200, noise=0)
    for _ in range(5000):
        model.observe(32, A + 32 * B)
    assert model.batch_s(1) == pytest.approx(A + B, rel=0.2)
    for _ in range(200):
        model.observe(32, 2 * (A + 32 * B))
    assert model.batch_s(32) == pytest.approx(2 * (A + 32 * B), rel=0.05)


def test_rows_beyond_a_batch_take_further_batches() -> None:
    model = LatencyModel(4)
    for _ in range(50):
        model.observe(1, 0.3)
        model.observe(4, 0.6)
    assert model.total_s(10, largest=4) == pytest.approx(2 * 0.6 + 0.4, rel=1e-3)
    assert model.total_s(0, largest=4) == 0


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(0, 10)), max_size=300))
def test_whatever_is_observed_a_prediction_is_finite_and_never_negative(batches: list[tuple[int, float]]) -> None:
    model = LatencyModel(32)
    for rows, seconds in batches:
        model.observe(rows, seconds)
    assert all(0 <= model.batch_s(rows) < 1e4 for rows in (1, 7, 32))


class Device:
    """A scripted session that takes a + b n seconds of a clock of its own."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b
        self.now = 0.0

    def run(self, inputs: Arrays) -> Arrays:
        self.now += self.a + self.b * len(inputs["x"])
        return {"y": inputs["x"]}


@pytest.mark.parametrize("seed", range(3))
def test_a_batcher_learns_its_device_from_two_hundred_batches_follows_a_change_and_acts_on_it(seed: int) -> None:
    device, latency, randomness = Device(A, B), LatencyModel(32), random.Random(seed)
    policy = BatchingPolicy(max_batch_size=32, max_request_rows=32, max_queue_size=64, max_queue_bytes=1 << 20)
    batcher = DynamicBatcher(
        "test", [device.run], policy, observer=Observer(), latency=latency, clock=lambda: device.now
    )
    batcher.start()

    def compute(rows: int, patience_s: float | None = None) -> None:
        reply = Reply()
        deadline = None if patience_s is None else device.now + patience_s
        batcher.submit(InferenceRequest({"x": np.zeros((rows, 1))}, rows, reply, deadline=deadline))
        assert not isinstance(reply.outcome(), Exception)

    try:
        for a, b in ((A, B), (3 * A, B / 2)):
            device.a, device.b = a, b
            for _ in range(200):
                compute(randomness.randint(1, 32))
            assert latency.a == pytest.approx(a, rel=0.1)
            assert latency.b == pytest.approx(b, rel=0.1)
            compute(32, patience_s=1.1 * (a + 32 * b))  # what an idle device can do is done,
            with pytest.raises(DeadlineExceededError):  # and what it cannot is refused at once
                compute(32, patience_s=0.9 * (a + 32 * b))
    finally:
        assert batcher.close(10)
