"""How far rounding alone may carry a graph from Keras: a limit that comes from the model.

Neither Keras nor ONNX Runtime computes what a network's formulas say: both round to float32, in another order on
every processor. How much that matters depends on the network; so it is measured, on this machine, as Keras'
own distance from a float64 evaluation of the same model. A graph that was converted faithfully rounds like Keras.
"""

from dataclasses import dataclass

import numpy as np

from inferry_trainer.arrays import Float32Array, Int64Array, UInt8Array
from inferry_trainer.blocks.checks import Float64Array
from inferry_trainer.evaluation.classifier import Classifier
from inferry_trainer.gates.float64 import NoTruthError, float64_probabilities

# Accepted whatever the truth says: about what float32 makes of a small network's probabilities. Every fault that
# we could plant moved some probability by 1e-4 or more.
MAX_DIFFERENCE = 1e-5
# The graph's distance from the truth was 0.3 to 1.3 times Keras' over nine networks of keras.applications and small
# ones; 4.3 times with group normalisation, whose sums the converter splits otherwise. Eight leaves one bit more.
FACTOR = 8.0
# Where Keras lies further than this from its float64 copy, the copy is another model, or float32 leaves the answers
# open; either way it says nothing of the graph.
CEILING = 1e-3
_EACH = 16  # images that differ most, and as many evenly spread


@dataclass(frozen=True, eq=False)
class Truth:
    """A float64 evaluation of some images, or why there is none.

    Attributes:
        positions: `(n,)` int64, of the images.
        probabilities: `(n, K)` float64.
        reason: why there is none; empty where there is one.
    """

    positions: Int64Array
    probabilities: Float64Array
    reason: str = ""

    @classmethod
    def none(cls, outputs: Float32Array, reason: str = "it was not asked for") -> "Truth":
        """No truth for a model that gives `outputs`."""
        return cls(np.zeros(0, np.int64), np.zeros((0, *outputs.shape[1:])), reason)


@dataclass(frozen=True)
class Rounding:
    """What float32 costs a model's probabilities, and what is accepted of a graph therefore.

    Attributes:
        floor: accepted in any case.
        images: asked in float64 too; 0 where the model has no float64 evaluation.
        largest: distance of Keras' probabilities from it.
        typical: the middle image's largest distance.
        reason: why there is no float64 evaluation.
    """

    floor: float = MAX_DIFFERENCE
    images: int = 0
    largest: float = 0.0
    typical: float = 0.0
    reason: str = ""

    @property
    def limit(self) -> float:
        """How far a probability of the graph's may lie from the truth."""
        return max(self.floor, FACTOR * self.largest)

    @property
    def typical_limit(self) -> float:
        """How far the median image may lie from the truth: one image with a large error does not raise it."""
        return max(self.floor, FACTOR * self.typical)

    @property
    def difference_limit(self) -> float:
        """How far a probability of the graph's may lie from Keras': both have their own distance from the truth."""
        return max(self.floor, (1 + FACTOR) * self.largest)

    def explain(self) -> str:
        """Where the limit comes from, for a message."""
        if self.reason:
            return f"--max-difference: {self.reason}"
        if self.difference_limit == self.floor:
            return f"--max-difference; Keras itself lies {self.largest:.2g} from its float64 evaluation"
        return (
            f"Keras itself lies {self.largest:.2g} from its float64 evaluation; --max-difference sets the least limit"
        )


def ask_float64(
    classifier: Classifier, images: UInt8Array, *, keras_outputs: Float32Array, onnx_outputs: Float32Array
) -> Truth:
    """Evaluate in float64 the images that Keras and graph differ on most, and as many evenly spread.

    Images that are not asked differ by no more than the least of those chosen for it: so a bound on these holds
    for all.

    Args:
        classifier: the Keras model.
        images: `(N, H, W, C)` uint8.
        keras_outputs: `(N, K)` float32.
        onnx_outputs: of the float32 graph, in the same shape.
    """
    difference = np.abs(keras_outputs.astype(np.float64) - onnx_outputs).max(axis=1)
    worst = np.argsort(-difference, kind="stable")[:_EACH]  # guard: gates-worst-images
    spread = np.linspace(0, len(images) - 1, min(len(images), _EACH)).round()
    positions = np.unique(np.concatenate([worst, spread])).astype(np.int64)
    try:
        probabilities = float64_probabilities(classifier, images[positions])
    except NoTruthError as error:
        return Truth.none(keras_outputs, str(error))
    return Truth(positions, probabilities)


def measure_rounding(truth: Truth, keras_outputs: Float32Array, *, floor: float = MAX_DIFFERENCE) -> Rounding:
    """Keras' distance from the truth.

    Args:
        truth: of some of the images.
        keras_outputs: `(N, K)` float32, of all.
        floor: accepted in any case.
    """
    if truth.reason:
        return Rounding(floor, reason=truth.reason)
    largest, typical = distances(truth, keras_outputs)
    if not largest <= CEILING:  # guard: gates-no-other-truth
        reason = f"Keras' answers lie {largest:.2g} from their float64 evaluation, which is more than rounding"
        return Rounding(floor, reason=reason)
    return Rounding(floor, len(truth.positions), largest, typical)


def distances(truth: Truth, outputs: Float32Array) -> tuple[float, float]:
    """Largest distance from the truth, and the middle image's largest.

    Args:
        truth: of some of the images.
        outputs: `(N, K)` float32, of all.
    """
    each = np.abs(truth.probabilities - outputs[truth.positions]).max(axis=1)
    return float(each.max()), float(np.median(each))
