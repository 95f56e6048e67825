"""The data sets by name; each ends as a `Dataset` whose pixels come from the shared preprocessing."""

from pathlib import Path

from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import celeba, digits, folder, mnist
from inferry_trainer.datasets.dataset import AnyPart, Dataset, FilePart, Part
from inferry_trainer.errors import ConfigError

__all__ = ["NAMES", "AnyPart", "Dataset", "FilePart", "Part", "load_dataset", "takes_files"]

_IDX_DATASETS = {source.files.dataset: source for source in (mnist.MNIST, mnist.FASHION_MNIST)}
NAMES = (digits.NAME, *_IDX_DATASETS, celeba.NAME, folder.NAME)


def takes_files(name: str) -> bool:
    """Whether a data set is read from files, so that a folder can be named for it."""
    return name != digits.NAME


def load_dataset(config: RunConfig, *, data_dir: Path | None) -> Dataset:
    """The data set of a run, split by its seed.

    Args:
        config: names the data set and what it is to be like.
        data_dir: where its files are; None looks in `$INFERRY_DATA`, in the cache, and downloads.

    Raises:
        ConfigError: no data set has this name, or no image would be left for one of the parts.
        DatasetError: its files are missing or damaged.
    """
    held_out, seed = config.validation_images, config.seed
    if config.dataset == digits.NAME:
        return digits.load_digits(validation_images=held_out, seed=seed)
    if config.dataset in _IDX_DATASETS:
        source = _IDX_DATASETS[config.dataset]
        return mnist.load_idx_dataset(source, data_dir=data_dir, validation_images=held_out, seed=seed)
    if config.dataset == celeba.NAME:
        return celeba.load_celeba(
            attribute=config.attribute,
            data_dir=data_dir,
            train_images=config.train_images,
            validation_images=held_out,
            seed=seed,
        )
    if config.dataset == folder.NAME:
        options = folder.FolderOptions(config.color, config.image_size, config.skip_unreadable)
        return folder.load_folder(data_dir, options, validation_images=held_out, seed=seed)
    raise ConfigError(f"there is no data set {config.dataset!r}; expected one of {', '.join(NAMES)}")
