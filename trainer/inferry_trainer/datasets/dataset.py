"""What every data set is once it is loaded: pixels or files, labels, and how the pixels come to be."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import PictureError, channel_count, prepare_image, prepare_pixels
from inferry_trainer.arrays import Int64Array, UInt8Array
from inferry_trainer.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Part:
    """The images that one step of a run may see, in memory.

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

    def prepare(self) -> "Part":
        """The same: these pixels have been through the shared preprocessing."""
        return self

    def digest_chunks(self) -> Iterator[bytes]:
        """What a digest of this part is taken over: names, shapes and bytes of both arrays."""
        for kind, array in (("images", self.images), ("labels", self.labels)):
            little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            yield f"{kind} {little_endian.dtype.str} {little_endian.shape}\n".encode()
            yield little_endian.tobytes()


@dataclass(frozen=True, eq=False)
class FilePart:
    """The images that one step of a run may see, in files: read when they are needed, never all at once.

    Attributes:
        files: `N` picture files.
        labels: `(N,)` int64; indices into the data set's labels.
        preprocessing: what a picture becomes before the model sees it.
    """

    files: tuple[Path, ...]
    labels: Int64Array
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.files),) or not self.files:
            raise ValueError(f"expected N > 0 files and labels (N,); {len(self.files)} and {self.labels.shape} came")

    def __len__(self) -> int:
        return len(self.files)

    def select(self, indices: Int64Array) -> "FilePart":
        """The files at these positions, in this order."""
        return FilePart(tuple(self.files[index] for index in indices), self.labels[indices], self.preprocessing)

    def prepare(self) -> Part:
        """All pixels, through the shared preprocessing: for parts that fit into memory at the model's size.

        Raises:
            DatasetError: a file cannot be read as a picture; names it.
        """
        spec = self.preprocessing
        images = np.empty((len(self), spec.height, spec.width, channel_count(spec)), np.uint8)
        for index, file in enumerate(self.files):
            images[index] = read_picture(file, spec)
        return Part(images, self.labels)

    def check(self) -> None:
        """Decode every file.

        Raises:
            DatasetError: one cannot be used; names the first.
        """
        for file in self.files:
            read_picture(file, self.preprocessing)

    def digest_chunks(self) -> Iterator[bytes]:
        """What a digest of this part is taken over: each file's name, label and bytes."""
        for file, label in zip(self.files, self.labels.tolist(), strict=True):
            yield f"{file.name} {label}\n".encode()
            yield hashlib.sha256(_read_bytes(file)).digest()


AnyPart: TypeAlias = Part | FilePart


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
        notes: what a user should know about this copy of the data.
        test_groups: groups of test images whose accuracy is worth a look apart: `(N,)` bool by name.
    """

    name: str
    labels: tuple[str, ...]
    train: AnyPart
    validation: AnyPart
    test: AnyPart
    preprocessing: Preprocessing
    source: str
    notes: tuple[str, ...] = ()
    test_groups: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of what the models take."""
        if isinstance(self.train, Part):
            height, width, channels = self.train.images.shape[1:]
            return height, width, channels
        return self.preprocessing.height, self.preprocessing.width, channel_count(self.preprocessing)

    @cached_property
    def sha256(self) -> str:
        """Digest over all images and labels, so over the split too; lower-case hexadecimal."""
        digest = hashlib.sha256()
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            digest.update(f"{name} {len(part)}\n".encode())
            for chunk in part.digest_chunks():
                digest.update(chunk)
        return digest.hexdigest()


def read_picture(file: Path, spec: Preprocessing) -> UInt8Array:
    """A file's pixels, through the shared preprocessing.

    Raises:
        DatasetError: it cannot be read, or is not a picture that fits; names it.
    """
    try:
        return prepare_image(_read_bytes(file), spec)
    except PictureError as error:
        raise DatasetError(f"{file} cannot be used: {error}") from error


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


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror or error}") from error
