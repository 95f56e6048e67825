"""Are probabilities to be believed? Of images answered with 80 %, 80 % should be right."""

from dataclasses import dataclass

import numpy as np

from inferry_trainer.arrays import Float32Array, Int64Array

BINS = 15  # as in Guo et al. 2017, "On Calibration of Modern Neural Networks"


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose probability lies between two bounds.

    Attributes:
        low: bound; excluded, but for 0.
        high: bound; included.
        images: how many.
        probability: their mean; 0 without images.
        frequency: how many of them, of 1, are what the probability is of; 0 without images.
    """

    low: float
    high: float
    images: int
    probability: float
    frequency: float


@dataclass(frozen=True)
class Reliability:
    """Probabilities held against frequencies.

    Attributes:
        bins: of equal width, ascending.
        of: what the probability is of: the answer, or, of two classes, the second.
    """

    bins: tuple[ReliabilityBin, ...]
    of: str

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean distance between the two, each bin as heavy as it has images."""
        images = sum(part.images for part in self.bins)
        return sum(part.images * abs(part.probability - part.frequency) for part in self.bins) / max(images, 1)


def measure_reliability(probabilities: Float32Array, labels: Int64Array) -> Reliability:
    """Hold probabilities against what turned out to be true.

    With two classes the probability is the second's, which shows both kinds of error; with more it is
    the answer's own.

    Args:
        probabilities: `(N, K)` float32.
        labels: `(N,)` int64.
    """
    binary = probabilities.shape[1] == 2
    stated = (probabilities[:, 1] if binary else probabilities.max(axis=1)).astype(np.float64)
    came_true = labels == (1 if binary else probabilities.argmax(axis=1))
    bounds = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.ceil(stated * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, weights=stated, minlength=BINS)
    hits = np.bincount(place, weights=came_true, minlength=BINS)
    safe = np.maximum(counts, 1)
    bins = tuple(
        ReliabilityBin(float(low), float(high), int(count), float(mean), float(share))
        for low, high, count, mean, share in zip(bounds, bounds[1:], counts, sums / safe, hits / safe, strict=False)
    )
    return Reliability(bins, of="the second class" if binary else "the answer")
