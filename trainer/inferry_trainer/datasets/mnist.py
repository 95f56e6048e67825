"""MNIST and Fashion-MNIST: 60,000 training and 10,000 test images, in IDX files with known checksums."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.arrays import Int64Array
from inferry_trainer.datasets.dataset import Dataset, Part, prepare_images
from inferry_trainer.datasets.idx import read_idx_images, read_idx_labels
from inferry_trainer.datasets.locate import RemoteFiles, locate_files
from inferry_trainer.datasets.split import shuffled_split
from inferry_trainer.errors import DatasetError

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"


@dataclass(frozen=True)
class IdxDataset:
    """A data set in MNIST's four files: where they are and what its classes are called."""

    files: RemoteFiles
    labels: tuple[str, ...]


MNIST = IdxDataset(
    RemoteFiles(
        dataset="mnist",
        md5_of={
            TRAIN_IMAGES: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            TRAIN_LABELS: "d53e105ee54ea40749a09fcbcd1e9432",
            TEST_IMAGES: "9fb629c4189551a2d022fa330f9573f3",
            TEST_LABELS: "ec29112dd5afa0611ce80d1b7f02629c",
        },
        mirrors=(
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "https://ossci-datasets.s3.amazonaws.com/mnist",
        ),
        bytes_about="11 MB",
    ),
    labels=tuple("0123456789"),
)

FASHION_MNIST = IdxDataset(
    RemoteFiles(
        dataset="fashion-mnist",
        md5_of={
            TRAIN_IMAGES: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            TRAIN_LABELS: "25c81989df183df01b3e8a0aad5dffbe",
            TEST_IMAGES: "bef4ecab320f06d8554ea6380940ec79",
            TEST_LABELS: "bb300cfdad3c16e7a12a480ee83cd310",
        },
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        ),
        bytes_about="30 MB",
    ),
    labels=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)


def load_idx_dataset(source: IdxDataset, *, data_dir: Path | None, validation_images: int, seed: int) -> Dataset:
    """A data set from its four IDX files.

    Args:
        source: which one.
        data_dir: the folder that holds the files or the folder named after the data set; None
            looks in `$INFERRY_DATA`, in the cache, and downloads.
        validation_images: taken from a fixed shuffle of the training images.
        seed: chooses which.

    Raises:
        DatasetError: files that are missing, damaged or disagree.
        ConfigError: no image would be left for one of the parts.
    """
    folder = locate_files(source.files, data_dir=data_dir)
    images, labels = _read_pair(folder, TRAIN_IMAGES, TRAIN_LABELS, classes=len(source.labels))
    test_images, test_labels = _read_pair(folder, TEST_IMAGES, TEST_LABELS, classes=len(source.labels))
    height, width = images.shape[1:]
    spec = Preprocessing(color_mode=Preprocessing.GRAYSCALE, height=height, width=width, filter=Preprocessing.BILINEAR)
    everything = Part(prepare_images(images, spec), labels)
    train, validation = shuffled_split(len(everything), validation_images, seed=seed)
    return Dataset(
        name=source.files.dataset,
        labels=source.labels,
        train=everything.select(train),
        validation=everything.select(validation),
        test=Part(prepare_images(test_images, spec), test_labels),
        preprocessing=spec,
        source=str(folder),
    )


def _read_pair(
    folder: Path, images_name: str, labels_name: str, *, classes: int
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], Int64Array]:
    images, labels = read_idx_images(folder / images_name), read_idx_labels(folder / labels_name)
    if len(images) != len(labels):
        raise DatasetError(
            f"{folder / labels_name} holds {len(labels)} labels; expected {len(images)}, one for each image "
            f"in {images_name}"
        )
    if labels.max() >= classes:
        raise DatasetError(f"{folder / labels_name} holds the label {labels.max()}; expected 0 to {classes - 1}")
    return images, labels.astype(np.int64)
