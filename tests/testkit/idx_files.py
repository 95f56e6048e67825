"""Data sets in MNIST's four files, small and made up."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.datasets import mnist
from inferry_trainer.datasets.idx import IMAGES_MAGIC, LABELS_MAGIC, file_md5


def encode_idx(array: UInt8Array, *, magic: int | None = None, shape: tuple[int, ...] | None = None) -> bytes:
    """A gzipped IDX file; `magic` and `shape` may lie about what follows."""
    if magic is None:
        magic = IMAGES_MAGIC if array.ndim == 3 else LABELS_MAGIC
    shape = array.shape if shape is None else shape
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + array.tobytes(), mtime=0)


def write_idx_dataset(folder: Path, *, train: int = 40, test: int = 10, seed: int = 0) -> mnist.IdxDataset:
    """Write the four files, and describe them: their checksums, and the folder as their only mirror."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for count, images_name, labels_name in (
        (train, mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS),
        (test, mnist.TEST_IMAGES, mnist.TEST_LABELS),
    ):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / images_name).write_bytes(encode_idx(images))
        (folder / labels_name).write_bytes(encode_idx(rng.integers(0, 10, count, dtype=np.uint8)))
    return describe_idx_dataset(folder)


def describe_idx_dataset(folder: Path) -> mnist.IdxDataset:
    """What `mnist` would say of the files in a folder, whatever they hold."""
    md5_of = {name: file_md5(folder / name) for name in mnist.MNIST.files.md5_of}
    files = replace(mnist.MNIST.files, dataset="tiny", md5_of=md5_of, mirrors=(folder.as_uri(),))
    return replace(mnist.MNIST, files=files)
