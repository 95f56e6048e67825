"""Handwritten digits of 8x8 pixels, which come inside scikit-learn: no download, real data."""

import numpy as np

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.datasets.dataset import Dataset, Part, prepare_images
from inferry_trainer.datasets.split import stratified_split

NAME = "digits"
LABELS = tuple("0123456789")
TEST_IMAGES = 360  # a fifth of 1,797

# Other data sets come with their test set; this one gets its own, the same for every run's seed,
# so that no image a model was trained on ever judges another.
_TEST_SEED = 1797
_LARGEST_VALUE = 16


def load_digits(*, validation_images: int, seed: int) -> Dataset:
    """The 1,797 digits, enlarged to the 28x28 pixels of MNIST's network.

    Args:
        validation_images: taken from the 1,437 that are not the test set, stratified.
        seed: chooses which.

    Raises:
        ConfigError: no image would be left for one of the parts.
    """
    from sklearn import datasets  # slow to import, and only this data set needs it

    bundled = datasets.load_digits()
    spec = Preprocessing(color_mode=Preprocessing.GRAYSCALE, height=28, width=28, filter=Preprocessing.BILINEAR)
    images = prepare_images(_to_uint8(bundled.images), spec)
    everything = Part(images, bundled.target.astype(np.int64))
    rest, test = stratified_split(everything.labels, TEST_IMAGES, seed=_TEST_SEED)
    train, validation = stratified_split(everything.labels[rest], validation_images, seed=seed)
    return Dataset(
        name=NAME,
        labels=LABELS,
        train=everything.select(rest[train]),
        validation=everything.select(rest[validation]),
        test=everything.select(test),
        preprocessing=spec,
        source="scikit-learn",
    )


def _to_uint8(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> UInt8Array:
    return np.rint(values * 255 / _LARGEST_VALUE).astype(np.uint8)
