import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import GateError
from inferry_trainer.gates.batches import LADDER, check_batches
from inferry_trainer.gates.latency import fit_latency, measure_latency

IMAGES: UInt8Array = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1), dtype=np.uint8)


class Device:
    """A scripted device: a batch of n takes `fixed + each * n` seconds of its own clock."""

    def __init__(self, fixed: float, each: float) -> None:
        self.fixed, self.each, self.now = fixed, each, 0.0

    def clock(self) -> float:
        return self.now

    def run(self, images: UInt8Array) -> Float32Array:
        self.now += self.fixed + self.each * len(images)
        return np.full((len(images), 2), 0.5, np.float32)


@given(st.floats(1e-5, 1), st.floats(1e-6, 1))
def test_the_line_of_a_device_that_follows_one_is_found(fixed: float, each: float) -> None:
    device = Device(fixed, each)
    curve = measure_latency(device.run, IMAGES, threads=2, clock=device.clock)
    assert curve.fixed_ms == pytest.approx(1e3 * fixed, rel=1e-3, abs=1e-3 * (fixed + each))
    assert curve.per_image_ms == pytest.approx(1e3 * each, rel=1e-3, abs=1e-5 * fixed)
    assert [size for size, _ in curve.points] == [*LADDER]
    assert curve.threads == 2


@given(st.lists(st.floats(0.01, 100), min_size=len(LADDER), max_size=len(LADDER)))
def test_no_batch_is_said_to_take_less_than_nothing(milliseconds: list[float]) -> None:
    try:
        curve = fit_latency(dict(zip(LADDER, milliseconds, strict=True)), threads=1)
    except GateError:
        return
    assert curve.fixed_ms >= 0
    assert curve.per_image_ms > 0


def test_a_device_that_takes_no_longer_for_more_images_is_refused() -> None:
    with pytest.raises(GateError, match="does not take longer with more images") as refused:
        fit_latency({1: 5.0, 2: 4.0, 32: 1.0}, threads=1)
    assert refused.value.gate == "latency"


def test_an_image_that_answers_differently_in_company_is_refused() -> None:
    def run(images: UInt8Array) -> Float32Array:
        outputs = np.full((len(images), 2), 0.5, np.float32)
        outputs[:, 0] += 0.01 * (len(images) >= 8)
        return outputs

    with pytest.raises(GateError, match=r"in batches of 8 an image's probabilities differ by 0\.01 from those"):
        check_batches(run, IMAGES)
    assert check_batches(run, IMAGES, precision="int8").figures["max_abs_difference"] == pytest.approx(0.01)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_image_that_is_computed_from_the_others_is_refused_however_weakly(precision: str) -> None:
    def run(images: UInt8Array) -> Float32Array:
        brightness = images.reshape(len(images), -1).mean(axis=1) / np.float32(255)
        mixed: Float32Array = np.stack([brightness, 1 - brightness], axis=1) + np.float32(1e-5) * brightness.mean()
        return mixed

    with pytest.raises(GateError, match="with the images beside it in a batch of 32"):
        check_batches(run, IMAGES, precision=precision, rounding=1e-4)


def test_an_image_that_gets_no_number_beside_some_others_is_refused() -> None:
    def run(images: UInt8Array) -> Float32Array:
        dark = (images == 0).all(axis=(1, 2, 3)).any()
        return np.full((len(images), 2), np.nan if dark else 0.5, np.float32)

    with pytest.raises(GateError, match="change by nan with the images beside it"):
        check_batches(run, IMAGES)


def test_batches_have_images_of_all_classes() -> None:
    seen: set[int] = set()

    def run(images: UInt8Array) -> Float32Array:
        seen.update(images[:, 0, 0, 0].tolist())
        return np.full((len(images), 2), 0.5, np.float32)

    classes = np.repeat(np.arange(10, dtype=np.uint8), 100)  # as a folder of folders has them
    check_batches(run, np.tile(classes.reshape(-1, 1, 1, 1), (1, 2, 2, 1)))
    assert seen >= set(range(10))


def test_a_batch_that_loses_rows_or_fails_is_refused() -> None:
    with pytest.raises(GateError, match="16 answers to 32 images in batches of 2"):
        check_batches(lambda images: np.full((max(1, len(images) - 1), 2), 0.5, np.float32), IMAGES)

    def fail(images: UInt8Array) -> Float32Array:
        raise RuntimeError("no memory")

    with pytest.raises(GateError, match="the model fails in batches of 1: no memory"):
        check_batches(fail, IMAGES)


def test_what_rounding_makes_of_a_model_is_accepted_in_batches_too() -> None:
    def run(images: UInt8Array) -> Float32Array:
        outputs = np.full((len(images), 2), 0.5, np.float32)
        outputs[:, 0] += 5e-5 * (len(images) >= 8)
        return outputs

    with pytest.raises(GateError, match=r"at most 1e-05 is accepted \(--max-difference"):
        check_batches(run, IMAGES)
    assert check_batches(run, IMAGES, rounding=1e-4).figures["max_abs_difference_limit"] == 1e-4
