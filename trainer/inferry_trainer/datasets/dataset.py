"""What every data set is once it is loaded: pixels, labels, and how the pixels came to be."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import channel_count, prepare_pixels
from inferry_trainer.arrays import Int64Array, UInt8Array


@dataclass(frozen=True, eq=False)
class Part:
    """The images that one step of a run may see.

    Attributes:
        images: `(N, H, W, C)` uint8, 0-255, as the shared preprocessing leaves them.
        labels: `(N,)` int64; indices into the data set's labels.
    """

    images: UInt8Array
    labels: Int64Array

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.labels.shape != (len(self.images),) or len(self.images) == 0:
            raise ValueError(
                f"expected images (N, H, W, C) and labels (N,), N > 0; {self.images.shape} and {self.labels.shape} came"
            )

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: Int64Array) -> "Part":
        """The images at these positions, in this order; copies."""
        return Part(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split once.

    Attributes:
        name: as on the command line.
        labels: line i names class i.
        train: what the weights are fitted to.
        validation: what an epoch is judged by; disjoint from `train`.
        test: looked at once, after training; disjoint from both.
        preprocessing: what a picture becomes before this data set's models see it.
        source: where the data was found, for people.
    """

    name: str
    labels: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    preprocessing: Preprocessing
    source: str

    @cached_property
    def sha256(self) -> str:
        """Digest over names, shapes and bytes of all arrays, so over the split too; lower-case hexadecimal."""
        digest = hashlib.sha256()
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            for kind, array in (("images", part.images), ("labels", part.labels)):
                little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
                digest.update(f"{name}/{kind} {little_endian.dtype.str} {little_endian.shape}\n".encode())
                digest.update(little_endian.tobytes())
        return digest.hexdigest()


def prepare_images(images: UInt8Array, spec: Preprocessing) -> UInt8Array:
    """Pixels as production sees them: each image goes through the shared preprocessing.

    Args:
        images: `(N, H, W)` grey or `(N, H, W, C)`, uint8, 0-255.
        spec: from the data set.

    Returns:
        `(N, height, width, C)` uint8, 0-255; a new array.
    """
    prepared = np.empty((len(images), spec.height, spec.width, channel_count(spec)), np.uint8)
    for index, image in enumerate(images):
        prepared[index] = prepare_pixels(image, spec)
    return prepared
