"""A picture of what augmentation does to a data set's training images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import AnyPart, FilePart, celeba, load_dataset
from inferry_trainer.datasets.dataset import read_picture
from inferry_trainer.errors import ConfigError, DatasetError
from inferry_trainer.training.augmentation_picture import columns, draw_augmentations
from inferry_trainer.workflow import Say

FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_LARGEST_GALLERY = 100


def show_augmentation(config: RunConfig, *, out: Path, data_dir: Path | None, images: int, say: Say) -> None:
    """Draw training images beside what the chapter's transformations and the recipe make of them.

    Args:
        config: names the data set, its settings and the augmentation.
        out: the picture to write.
        data_dir: where the data set's files are; None looks in the usual places.
        images: how many rows.
        say: told what happens.

    Raises:
        TrainerError: what was refused.
    """
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"{out} has no name of a picture; expected one that ends in {', '.join(FORMATS)}")
    if not 1 <= images <= _LARGEST_GALLERY:
        raise ConfigError(f"images is {images}; expected 1 to {_LARGEST_GALLERY}")
    if config.dataset == celeba.NAME:
        config = replace(config, train_images=0, validation_images=0)  # all there are, be they few
    dataset = load_dataset(config, data_dir=data_dir)
    chosen = np.random.default_rng(config.seed).choice(
        len(dataset.train), min(images, len(dataset.train)), replace=False
    )
    shown = columns(dataset.preprocessing, config.augmentation, seed=config.seed)
    picture = draw_augmentations(_originals(dataset.train.select(chosen)), shown)
    try:
        picture.save(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from error
    if not any(label.startswith("training") for label in shown):
        say(f"note: recipe {config.recipe} changes no training image of {config.dataset}")
    say(f"picture: {out}")


def _originals(part: AnyPart) -> list[UInt8Array]:
    """As they are before crop and resize."""
    if isinstance(part, FilePart):
        return [_original(file, part.preprocessing) for file in part.files]
    return [*part.images]


def _original(file: Path, spec: Preprocessing) -> UInt8Array:
    try:
        with Image.open(file) as picture:
            width, height = ImageOps.exif_transpose(picture).size
    except OSError as error:
        raise DatasetError(f"{file} cannot be used: {error}") from error
    whole = Preprocessing(color_mode=spec.color_mode, height=height, width=width, filter=spec.filter)
    return read_picture(file, whole)
