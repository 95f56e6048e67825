"""A picture of what augmentation does: each row a training image, each column what became of it."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.config import Augmentation
from inferry_trainer.datasets.pixels import PIXEL_MAX, scale_pixels
from inferry_trainer.training.augmentation import augment
from inferry_trainer.training.augmentation_chapter import (
    change_brightness,
    change_contrast,
    crop_to_box,
    flip,
    random_square,
    resize,
    zoom_into_center,
)

Change: TypeAlias = Callable[[Any, int], Any]
"""From an image, `(H, W, C)` float32 in [0, 1], and its row in the picture to what became of it."""

_CELL, _GAP, _HEAD, _MARGIN = 112, 8, 38, 16
_BACK, _TEXT, _SOFT = (255, 255, 255), (29, 39, 51), (91, 107, 123)
_RANDOM_VIEWS = 4


def columns(spec: Preprocessing, settings: Augmentation, *, seed: int) -> dict[str, Change]:
    """What is shown of an image, by the label above it: the chapter's transformations, then the recipe's.

    Args:
        spec: of the data set: its crop box and size.
        settings: of the recipe.
        seed: of the random ones.
    """
    shown: dict[str, Change] = {"original": lambda image, _: image}
    if spec.HasField("crop"):
        shown["crop to box"] = lambda image, _: crop_to_box(image, spec.crop)
    shown |= {
        "mirrored": lambda image, _: flip(image),
        "contrast x2": lambda image, _: change_contrast(image),
        "brightness +0.3": lambda image, _: change_brightness(image),
        "middle 0.7, enlarged": lambda image, _: zoom_into_center(image),
    }
    if settings != Augmentation():
        for number in range(1, _RANDOM_VIEWS + 1):
            shown[f"training {number}"] = _random_view(spec, settings, seed=seed, column=number)
    return shown


def draw_augmentations(images: list[UInt8Array], shown: dict[str, Change]) -> Image.Image:
    """A labelled picture, a row for each image.

    Args:
        images: `(H, W, C)` uint8 each; C is 1 or 3.
        shown: from `columns`.
    """
    width = 2 * _MARGIN + len(shown) * (_CELL + _GAP) - _GAP
    height = 2 * _MARGIN + _HEAD + len(images) * (_CELL + _GAP) - _GAP
    picture = Image.new("RGB", (width, height), _BACK)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(11)
    for column, (label, change) in enumerate(shown.items()):
        left = _MARGIN + column * (_CELL + _GAP)
        color = _SOFT if label == "original" else _TEXT
        draw.text((left + _CELL / 2, _MARGIN + _HEAD / 2), label, fill=color, font=font, anchor="mm")
        for row, image in enumerate(images):
            top = _MARGIN + _HEAD + row * (_CELL + _GAP)
            _paste(picture, np.asarray(change(tf.constant(scale_pixels(image)), row)), left=left, top=top)
    return picture


def _random_view(spec: Preprocessing, settings: Augmentation, *, seed: int, column: int) -> Change:
    def view(image: Any, row: int) -> Any:
        of_view = (seed, _RANDOM_VIEWS * row + column)
        if settings.crop == "random":
            image = random_square(image, seed=of_view)
        elif spec.HasField("crop"):
            image = crop_to_box(image, spec.crop)
        image = resize(image, spec.height, spec.width)
        return augment(image[None], settings, seed=of_view)[0]

    return view


def _paste(picture: Image.Image, image: Any, *, left: int, top: int) -> None:
    """Fitted into its cell, and centred there."""
    pixels = np.rint(image * PIXEL_MAX).astype(np.uint8)
    small = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    factor = _CELL / max(small.size)
    size = (max(1, round(small.width * factor)), max(1, round(small.height * factor)))
    fitted = small.resize(size, Image.Resampling.BICUBIC if factor < 1 else Image.Resampling.NEAREST)
    picture.paste(fitted, (left + (_CELL - size[0]) // 2, top + (_CELL - size[1]) // 2))
