"""Your own pictures: a folder with a folder for each class."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import PictureError, prepare_image
from inferry_trainer.arrays import Int64Array
from inferry_trainer.datasets.dataset import Dataset, FilePart
from inferry_trainer.datasets.split import stratified_split
from inferry_trainer.errors import ConfigError, DatasetError

NAME = "folder"
COLORS = ("auto", "grey", "rgb")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # what the shared preprocessing decodes
LARGEST_SIDE = 1024

# The test set is the same for every run's seed, so that no image a model was trained on ever judges another.
_TEST_SEED = 1797
_TEST_SHARE, _VALIDATION_SHARE = 0.2, 0.1
_FEWEST_OF_A_CLASS = 3  # one for each part
_LARGEST_INFERRED_SIDE, _DEFAULT_SIDE = 128, 64
_NAMED_AT_MOST = 5
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_GREY_MODES = ("1", "L", "I", "I;16")


@dataclass(frozen=True)
class FolderOptions:
    """How a folder of pictures is read.

    Attributes:
        color: `grey`, `rgb`, or `auto`: grey where every picture is.
        image_size: side in pixels of what the model sees; 0 is the pictures' own where they all have one
            of at most 128, else 64.
        skip_unreadable: leave out files that cannot be decoded, where they would be refused.

    Raises:
        ConfigError: a setting outside its range.
    """

    color: str = "auto"
    image_size: int = 0
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if self.color not in COLORS:
            raise ConfigError(f"color is {self.color!r}; expected one of {', '.join(COLORS)}")
        if self.image_size and not 8 <= self.image_size <= LARGEST_SIDE:
            raise ConfigError(f"image_size is {self.image_size}; expected 8 to {LARGEST_SIDE}, or 0 to infer it")


@dataclass(frozen=True)
class _Picture:
    file: Path
    label: int
    size: tuple[int, int]  # width, height
    is_grey: bool
    sha256: str


def load_folder(data_dir: Path | None, options: FolderOptions, *, validation_images: int, seed: int) -> Dataset:
    """A folder of class folders, split so that each class has its share in every part.

    A fifth is the test set, whatever the seed. Every file is decoded once, so that what is damaged is
    known before training; pictures whose bytes are equal count once, so that no copy judges its twin.

    Args:
        data_dir: each folder in it is a class, named as the folder; pictures may lie deeper.
        options: how pictures are read.
        validation_images: taken from what is not the test set; 0 is a tenth.
        seed: chooses which.

    Raises:
        ConfigError: no folder was named, or no image would be left for one of the parts.
        DatasetError: fewer than two classes, files that cannot be read, a picture in two classes.
    """
    if data_dir is None:
        raise ConfigError(f"{NAME} needs --data-dir: a folder that holds a folder for each class")
    classes = _classes(data_dir)
    pictures, notes = _read_pictures(data_dir, classes, options)
    pictures, copies = _without_copies(pictures)
    if copies:
        notes.append(f"{copies} pictures are copies of others in their class; they are left out")
    labels = np.array([picture.label for picture in pictures], np.int64)
    _check_counts(data_dir, classes, labels)
    everything = FilePart(tuple(picture.file for picture in pictures), labels, _preprocessing(pictures, options))
    train, validation, test = _split(labels, validation_images, seed)
    return Dataset(
        name=NAME,
        labels=classes,
        train=everything.select(train),
        validation=everything.select(validation),
        test=everything.select(test),
        preprocessing=everything.preprocessing,
        source=str(data_dir),
        notes=tuple(notes),
    )


def visible_files(folder: Path) -> list[Path]:
    """Every file below a folder, sorted, but for hidden ones and those in hidden folders.

    So `._1.png`, which macOS leaves beside `1.png`, and `.ipynb_checkpoints` are no pictures of anybody's.
    """

    def is_visible(path: Path) -> bool:
        return not any(is_hidden(part) for part in path.relative_to(folder).parts)  # guard: folder-hidden-files

    return sorted(path for path in folder.rglob("*") if is_visible(path) and path.is_file())


def find_pictures(folder: Path) -> list[Path]:
    """Every visible file below a folder whose suffix is a picture's, sorted."""
    return [path for path in visible_files(folder) if path.suffix.lower() in SUFFIXES]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is some program's own."""
    return name.startswith(".") or name == "__MACOSX"


def _classes(folder: Path) -> tuple[str, ...]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read as a folder of pictures: {error.strerror or error}") from error
    if names and {name.lower() for name in names} <= _PARTS:
        raise DatasetError(
            f"{folder} holds {', '.join(names)}, which look like parts and not like classes; name the folder whose "
            "folders are the classes: the parts are made from it"
        )
    if len(names) < 2:
        came = f"only {names[0]!r} is there" if names else "it holds no folder"
        raise DatasetError(f"{folder} has too few classes: expected a folder for each of at least two, {came}")
    return tuple(names)


def _read_pictures(folder: Path, classes: tuple[str, ...], options: FolderOptions) -> tuple[list[_Picture], list[str]]:
    pictures: list[_Picture] = []
    unreadable: list[str] = []
    others = 0
    for label, name in enumerate(classes):
        for file in visible_files(folder / name):
            if file.suffix.lower() not in SUFFIXES:
                others += 1
                continue
            try:
                pictures.append(_read_picture(file, label))
            except (OSError, PictureError) as error:
                unreadable.append(f"{file}: {error}")
    if unreadable and not options.skip_unreadable:
        raise DatasetError(
            f"{len(unreadable)} of {len(unreadable) + len(pictures)} pictures cannot be read: "
            f"{_name_some(unreadable)}. Replace them, or leave them out with --skip-unreadable"
        )
    notes = [f"left out as unreadable: {_name_some(unreadable)}"] if unreadable else []
    if others:
        notes.append(f"{others} files are not pictures by their names ({', '.join(SUFFIXES)}); they are left out")
    return pictures, notes


def _read_picture(file: Path, label: int) -> _Picture:
    """Decodes the whole of it: what is damaged shall be known now."""
    data = file.read_bytes()
    as_it_is = Preprocessing(color_mode=Preprocessing.RGB, height=1, width=1, filter=Preprocessing.NEAREST)
    prepare_image(data, as_it_is)
    with Image.open(io.BytesIO(data)) as picture:
        return _Picture(file, label, picture.size, picture.mode in _GREY_MODES, hashlib.sha256(data).hexdigest())


def _without_copies(pictures: list[_Picture]) -> tuple[list[_Picture], int]:
    first: dict[str, _Picture] = {}
    for picture in pictures:
        other = first.setdefault(picture.sha256, picture)
        if other.label != picture.label:
            raise DatasetError(f"{other.file} and {picture.file} are the same picture in two classes; keep one")
    return list(first.values()), len(pictures) - len(first)


def _check_counts(folder: Path, classes: tuple[str, ...], labels: Int64Array) -> None:
    for name, count in zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True):
        if count < _FEWEST_OF_A_CLASS:
            raise DatasetError(
                f"{folder / name} holds {count} pictures ({', '.join(SUFFIXES)}); expected at least "
                f"{_FEWEST_OF_A_CLASS}, one for each part"
            )


def _preprocessing(pictures: list[_Picture], options: FolderOptions) -> Preprocessing:
    grey = options.color == "grey" or (options.color == "auto" and all(picture.is_grey for picture in pictures))
    width, height = options.image_size, options.image_size
    if not options.image_size:
        sizes = {picture.size for picture in pictures}
        width, height = sizes.pop() if len(sizes) == 1 else (_DEFAULT_SIDE, _DEFAULT_SIDE)
        if max(width, height) > _LARGEST_INFERRED_SIDE:
            width = height = _DEFAULT_SIDE
    return Preprocessing(
        color_mode=Preprocessing.GRAYSCALE if grey else Preprocessing.RGB,
        height=height,
        width=width,
        filter=Preprocessing.BILINEAR,
    )


def _split(labels: Int64Array, validation_images: int, seed: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    rest, test = stratified_split(labels, max(1, round(len(labels) * _TEST_SHARE)), seed=_TEST_SEED)
    held_out = validation_images or max(1, round(len(rest) * _VALIDATION_SHARE))
    train, validation = stratified_split(labels[rest], held_out, seed=seed)
    return rest[train], rest[validation], test


def _name_some(items: list[str]) -> str:
    named = "; ".join(items[:_NAMED_AT_MOST])
    return named if len(items) <= _NAMED_AT_MOST else f"{named}; and {len(items) - _NAMED_AT_MOST} more"
