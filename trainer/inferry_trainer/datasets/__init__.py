"""The data sets by name; each ends as a `Dataset` of uint8 pixels from the shared preprocessing."""

from pathlib import Path

from inferry_trainer.datasets import digits, mnist
from inferry_trainer.datasets.dataset import Dataset, Part
from inferry_trainer.errors import ConfigError

__all__ = ["NAMES", "Dataset", "Part", "load_dataset", "takes_files"]

_IDX_DATASETS = {source.files.dataset: source for source in (mnist.MNIST, mnist.FASHION_MNIST)}
NAMES = (digits.NAME, *_IDX_DATASETS)


def takes_files(name: str) -> bool:
    """Whether a data set is read from files, so that a folder can be named for it."""
    return name in _IDX_DATASETS


def load_dataset(name: str, *, data_dir: Path | None, validation_images: int, seed: int) -> Dataset:
    """A data set, split by seed.

    Args:
        name: one of `NAMES`.
        data_dir: where its files are; None looks in `$INFERRY_DATA`, in the cache, and downloads.
        validation_images: how many of the training images to hold out for validation.
        seed: chooses which.

    Raises:
        ConfigError: no data set has this name, or no image would be left for one of the parts.
        DatasetError: its files are missing or damaged.
    """
    if name == digits.NAME:
        return digits.load_digits(validation_images=validation_images, seed=seed)
    if name in _IDX_DATASETS:
        return mnist.load_idx_dataset(
            _IDX_DATASETS[name], data_dir=data_dir, validation_images=validation_images, seed=seed
        )
    raise ConfigError(f"there is no data set {name!r}; expected one of {', '.join(NAMES)}")
