"""The limit of parity comes from the model: from how far Keras itself lies from a float64 evaluation."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import GateError
from inferry_trainer.evaluation.classifier import Outputs, Pixels, make_classifier
from inferry_trainer.export.candidate import make_probes
from inferry_trainer.gates.float64 import NoTruthError, float64_probabilities
from inferry_trainer.gates.outputs import compare_outputs, measure_difference
from inferry_trainer.gates.rounding import CEILING, FACTOR, Rounding, Truth, ask_float64, measure_rounding

layers = keras.layers
IMAGES: UInt8Array = make_probes((12, 12, 3))


def block(*inner: Any, last: Any = None) -> Any:
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [keras.Input((12, 12, 3)), *inner, layers.Flatten(), last or layers.Dense(3, activation="softmax")]
    )


def normalization() -> Any:
    layer = layers.Normalization()
    layer.adapt(IMAGES.astype(np.float32) / 255)
    return layer


NETWORKS = {
    "convolutions": lambda: block(layers.Conv2D(4, 3, activation="gelu"), layers.DepthwiseConv2D(3)),
    "batch normalisation": lambda: block(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()),
    "constants from data": lambda: block(normalization(), layers.Conv2D(4, 3)),
    "layers within layers": lambda: block(
        layers.TimeDistributed(layers.Dense(4)), keras.Sequential([layers.Conv2D(4, 3)])
    ),
    "one logit": lambda: block(last=layers.Dense(1)),
    "one probability": lambda: block(last=layers.Dense(1, activation="sigmoid")),
    "logits": lambda: block(last=layers.Dense(3)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pixels", [Pixels.UNIT, Pixels.SIGNED])
def test_keras_lies_within_rounding_of_its_float64_evaluation(name: str, pixels: Pixels) -> None:
    classifier = make_classifier(NETWORKS[name](), pixels=pixels)
    outputs = classifier.predict(IMAGES)
    exact = float64_probabilities(classifier, IMAGES)
    assert exact.dtype == np.float64
    assert np.allclose(exact.sum(axis=1), 1, atol=1e-12)
    assert 0 < np.abs(exact - outputs).max() < 1e-4


class Float32Only(keras.layers.Layer):  # type: ignore[misc]
    """A layer of somebody's own that does not bear another dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = keras.ops.ones((3,), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {}

    def call(self, x: Any) -> Any:
        return keras.ops.cast(x, "float32") * self.kernel


def test_a_model_without_float64_evaluation_falls_back_to_the_floor_and_says_so() -> None:
    classifier = make_classifier(block(Float32Only(), last=layers.Dense(3)), outputs=Outputs.LOGITS)
    outputs = classifier.predict(IMAGES)
    truth = ask_float64(classifier, IMAGES, keras_outputs=outputs, onnx_outputs=outputs)
    rounding = measure_rounding(truth, outputs, floor=2e-5)
    if truth.reason:
        assert (rounding.images, rounding.difference_limit) == (0, 2e-5)
        assert "float64" in rounding.explain()
    else:  # Keras cast behind the layer: then it is float32's rounding that is missing, and the limit is less
        assert rounding.difference_limit == 2e-5


def test_a_layer_that_cannot_be_copied_is_a_reason_not_an_accident() -> None:
    class Stubborn(Float32Only):
        def __init__(self, *, size: int) -> None:
            super().__init__()

    classifier = make_classifier(block(Stubborn(size=3), last=layers.Dense(3)))
    with pytest.raises(NoTruthError, match="it has no float64 evaluation: "):
        float64_probabilities(classifier, IMAGES[:2])


def answers(count: int, seed: int) -> Float32Array:
    raw = np.random.default_rng(seed).random((count, 3))
    normalized: Float32Array = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalized


@given(st.floats(1e-8, CEILING / 2), st.floats(0.1, 0.9), st.integers(0, 100))
def test_a_graph_passes_that_is_no_further_from_the_truth_than_the_factor_allows(
    rounded: float, share: float, seed: int
) -> None:
    keras_outputs = answers(20, seed)
    exact = keras_outputs.astype(np.float64)
    exact[:, 0] += rounded
    truth = Truth(np.arange(20), exact)
    rounding = measure_rounding(truth, keras_outputs)
    assert rounding.largest == pytest.approx(rounded, rel=1e-6)
    assert rounding.limit == max(1e-5, FACTOR * rounding.largest)
    graph = (exact + share * rounding.limit * np.array([1, 0, 0])).astype(np.float32)
    if (graph.argmax(axis=1) == keras_outputs.argmax(axis=1)).all():
        assert compare_outputs(keras_outputs, graph, truth=truth, rounding=rounding).to_truth is not None
    further = (exact - (1.05 * rounding.limit + 1e-6) * np.array([1, 0, 0])).astype(np.float32)
    with pytest.raises(GateError, match="gate parity"):
        compare_outputs(keras_outputs, further, truth=truth, rounding=rounding)


def test_one_image_that_float32_leaves_open_excuses_no_other() -> None:
    keras_outputs = answers(20, 1)
    exact = keras_outputs.astype(np.float64)
    exact[7, 0] += 9e-4
    truth = Truth(np.arange(20), exact)
    rounding = measure_rounding(truth, keras_outputs)
    graph = (exact + np.array([1e-4, 0, 0])).astype(np.float32)
    with pytest.raises(GateError, match="further from the model than Keras is"):
        compare_outputs(keras_outputs, graph, truth=truth, rounding=rounding)


def test_a_truth_far_from_keras_is_none() -> None:
    """It may be another model's: it must not widen the limit."""
    keras_outputs = answers(20, 2)
    truth = Truth(np.arange(20), keras_outputs + np.array([2 * CEILING, 0, 0]))
    rounding = measure_rounding(truth, keras_outputs)
    assert rounding.difference_limit == 1e-5
    assert "more than rounding" in rounding.explain()


def test_the_images_that_differ_most_are_asked_in_float64() -> None:
    classifier = make_classifier(block())
    images = np.concatenate([IMAGES] * 3)
    outputs = classifier.predict(images)
    graph = outputs.copy()
    graph[101] += np.float32(1e-3)
    truth = ask_float64(classifier, images, keras_outputs=outputs, onnx_outputs=graph)
    assert 101 in truth.positions
    assert len(truth.positions) < len(images)


def test_labels_of_a_variant_are_ties_by_rounding_not_by_its_own_error() -> None:
    keras_outputs = np.array([[0.9, 0.1], [0.500001, 0.499999]], np.float32)
    report = measure_difference(keras_outputs, keras_outputs[:, ::-1], rounding=Rounding())
    assert (report.label_mismatches, report.label_ties) == (2, 1)
