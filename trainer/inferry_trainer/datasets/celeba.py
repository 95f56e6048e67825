"""CelebA: 202,599 photographs of faces with 40 attributes each, in the layout of its official files."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.arrays import Int64Array
from inferry_trainer.datasets.dataset import Dataset, FilePart
from inferry_trainer.datasets.locate import DATA_VARIABLE, cache_folder, folder_from_environment
from inferry_trainer.errors import ConfigError, DatasetError

NAME = "celeba"
IMAGES, ATTRIBUTES, PARTITION, IDENTITIES = (
    "img_align_celeba",
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
    "identity_CelebA.txt",
)
_TRAIN, _VALIDATION, _TEST = 0, 1, 2
_PART_NAMES = ("training", "validation", "test")
_SUBFOLDERS = ("", "Anno", "Eval", "Img")  # as the official download unpacks
_GROUPS = ("Male", "Young", "Pale_Skin", "Eyeglasses", "Wearing_Hat", "Blurry")

# The chapter's: a square around the face, from pictures 178 wide and 218 high.
PREPROCESSING = Preprocessing(
    color_mode=Preprocessing.RGB,
    crop=Preprocessing.CropBox(left=0, top=20, width=178, height=178, picture_width=178, picture_height=218),
    height=64,
    width=64,
    filter=Preprocessing.BILINEAR,
)


@dataclass(frozen=True)
class _Attributes:
    """`list_attr_celeba.txt`: a row of -1 and 1 for each file name."""

    names: tuple[str, ...]
    rows: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]

    def column(self, name: str, files: Iterable[str]) -> Int64Array:
        """0 or 1 for each file."""
        index = self.names.index(name)
        return np.array([self.rows[file][index] == "1" for file in files], np.int64)


def load_celeba(
    *, attribute: str, data_dir: Path | None, train_images: int, validation_images: int, seed: int
) -> Dataset:
    """CelebA with one attribute as its label; photographs stay in their files.

    The parts are the data set's own, in which no person is meant to be in two; where
    `identity_CelebA.txt` is there and says otherwise, the images concerned leave the earlier part.

    Args:
        attribute: a name from the header of `list_attr_celeba.txt`.
        data_dir: the folder that holds the official files, or its folder `celeba`; None looks in
            `$INFERRY_DATA` and in the cache.
        train_images: how many of the training part to use; 0 is all.
        validation_images: how many of the validation part to use; 0 is all.
        seed: chooses which.

    Raises:
        ConfigError: there is no such attribute; names the nearest.
        DatasetError: a file is missing or is not what it should be; names it.
    """
    folder = _locate(data_dir)
    attributes = _read_attributes(_find(folder, ATTRIBUTES))
    _check_attribute(attribute, attributes.names)
    part_of = _read_partition(_find(folder, PARTITION), attributes.rows)
    images = _find_images(folder)
    present, notes = _present(images, attributes.rows)
    names = [[name for name in present if part_of[name] == part] for part in (_TRAIN, _VALIDATION, _TEST)]
    names, identity_notes = _separate_identities(folder, names)
    for part, members in zip(_PART_NAMES, names, strict=True):
        if not members:
            raise DatasetError(
                f"{images} holds none of the {part} images that {ATTRIBUTES} and {PARTITION} list; unpack all of it"
            )
    rng = np.random.default_rng(seed)
    chosen = [
        _choose(rng, names[_TRAIN], train_images, "train_images"),
        _choose(rng, names[_VALIDATION], validation_images, "validation_images"),
        names[_TEST],
    ]
    train, validation, test = (
        FilePart(tuple(images / name for name in part), attributes.column(attribute, part), PREPROCESSING)
        for part in chosen
    )
    _check_both_classes(attribute, train.labels, validation.labels, test.labels)
    groups = [name for name in _GROUPS if name in attributes.names and name != attribute]
    return Dataset(
        name=NAME,
        labels=(f"not {attribute}", attribute),
        train=train,
        validation=validation,
        test=test,
        preprocessing=PREPROCESSING,
        source=str(folder),
        notes=(*attributes.notes, *notes, *identity_notes),
        test_groups={name: attributes.column(name, chosen[_TEST]).astype(np.bool_) for name in groups},
    )


def _locate(data_dir: Path | None) -> Path:
    """The folder with the official files. There is no download: the licence asks each user to agree to it."""
    looked_in = []
    for setting, folder in (
        ("--data-dir", data_dir),
        (f"${DATA_VARIABLE}", folder_from_environment()),
        ("the cache", cache_folder(NAME).parent),
    ):
        if folder is None:
            looked_in.append(f"{setting} (not set)")
            continue
        for candidate in (folder / NAME, folder):
            if any((candidate / sub / name).exists() for sub in _SUBFOLDERS for name in (ATTRIBUTES, IMAGES)):
                return candidate
        looked_in.append(f"{setting} ({folder})")
        if setting == "--data-dir":
            break  # falling back would train on other data than was asked for
    raise DatasetError(
        f"{NAME} was not found in {', '.join(looked_in)}; expected {IMAGES}/, {ATTRIBUTES} and {PARTITION}. Its "
        f"licence allows no redistribution: download them from the authors' page (search for `CelebA dataset`) and "
        f"name their folder with --data-dir or ${DATA_VARIABLE}"
    )


def _find(folder: Path, name: str) -> Path:
    path = _find_optional(folder, name)
    if path is None:
        csv = name.replace(".txt", ".csv")
        hint = f"; {csv} is another edition's" if _find_optional(folder, csv) else ""
        raise DatasetError(f"{folder / name} is missing{hint}; expected the official file of {NAME}")
    return path


def _find_optional(folder: Path, name: str) -> Path | None:
    return next((folder / sub / name for sub in _SUBFOLDERS if (folder / sub / name).exists()), None)


def _find_images(folder: Path) -> Path:
    images = _find(folder, IMAGES)
    nested = images / IMAGES  # as some archives unpack
    images = nested if nested.is_dir() else images
    if not images.is_dir():
        raise DatasetError(f"{images} is not a folder; expected the unpacked photographs of {NAME}")
    return images


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    if text.lstrip()[:1] == "<":
        raise DatasetError(
            f"{path} begins with {text.lstrip()[:15]!r}, so it looks like a web page saved in its place; "
            "download it again"
        )
    return [line for line in text.splitlines() if line.strip()]


def _read_attributes(path: Path) -> _Attributes:
    lines = _read_lines(path)
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise DatasetError(
            f"{path} is not CelebA's list of attributes: expected a count, a line of names, then a row for each image; "
            f"{lines[0][:40] if lines else 'nothing'!r} came first"
        )
    names = tuple(lines[1].split())
    rows: dict[str, Sequence[str]] = {}
    for number, line in enumerate(lines[2:], start=3):
        name, *values = line.split()
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise DatasetError(
                f"{path}, line {number}: expected a file name and {len(names)} values of -1 or 1, one for each name "
                f"in line 2; {line[:60]!r} came"
            )
        rows[name] = values
    stated = int(lines[0])
    if stated == len(rows):
        return _Attributes(names, rows, notes=())
    return _Attributes(names, rows, notes=(f"{path.name} announces {stated} images and lists {len(rows)}",))


def _check_attribute(attribute: str, names: Sequence[str]) -> None:
    if attribute in names:
        return
    by_lower = {name.lower(): name for name in names}
    nearest = difflib.get_close_matches(attribute.lower(), by_lower, n=1, cutoff=0)
    raise ConfigError(
        f"{NAME} has no attribute {attribute!r}; the nearest is {by_lower[nearest[0]]!r}. It has {', '.join(names)}"
    )


def _read_partition(path: Path, listed: Mapping[str, object]) -> dict[str, int]:
    part_of = _read_numbers(path)
    for name, part in part_of.items():
        if part not in (_TRAIN, _VALIDATION, _TEST):
            raise DatasetError(f"{path}: expected 0, 1 or 2 for {name}; {part} came")
    missing = [name for name in listed if name not in part_of]
    if missing:
        raise DatasetError(
            f"{path} does not say to which part {missing[0]} belongs, nor for {len(missing) - 1} more images that "
            f"{ATTRIBUTES} lists; download it again"
        )
    return part_of


def _read_numbers(path: Path) -> dict[str, int]:
    """Rows of a file name and a number."""
    numbers = {}
    for number, line in enumerate(_read_lines(path), start=1):
        columns = line.split()
        if len(columns) != 2 or not columns[1].isdigit():
            raise DatasetError(f"{path}, line {number}: expected a file name and a number; {line[:60]!r} came")
        numbers[columns[0]] = int(columns[1])
    return numbers


def _present(images: Path, listed: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """The listed images that are there, and a note about those that are not."""
    there = {entry.name for entry in os.scandir(images)}
    present: list[str] = []
    missing: list[str] = []
    for name in listed:
        (present if name in there else missing).append(name)
    if not missing:
        return present, ()
    return present, (f"{len(missing)} listed images are not in {images}, {missing[0]} the first; they are left out",)


def _separate_identities(folder: Path, names: list[list[str]]) -> tuple[list[list[str]], tuple[str, ...]]:
    """Take out of a part everyone who is in a later one: test images stay, the others make way."""
    path = _find_optional(folder, IDENTITIES)
    if path is None:
        return names, ()
    identity_of = _read_numbers(path)
    separated: list[list[str]] = []
    seen: set[int] = set()
    for part in reversed(names):
        separated.insert(0, [name for name in part if identity_of.get(name) not in seen])
        seen |= {identity_of[name] for name in part if name in identity_of}
    dropped = sum(map(len, names)) - sum(map(len, separated))
    if not dropped:
        return names, ()
    return separated, (f"{dropped} images show someone who is in a later part too ({path.name}); they are left out",)


def _choose(rng: np.random.Generator, names: list[str], count: int, setting: str) -> list[str]:
    if count > len(names):
        raise ConfigError(f"{setting} is {count}; expected at most the {len(names)} that are there, or 0 for all")
    chosen = rng.permutation(len(names))[: count or len(names)]
    return [names[index] for index in chosen]


def _check_both_classes(attribute: str, *labels_of_parts: Int64Array) -> None:
    for part, labels in zip(_PART_NAMES, labels_of_parts, strict=True):
        if len(np.unique(labels)) < 2:
            state = "have it" if labels[0] else "do not"
            raise DatasetError(
                f"attribute {attribute!r} cannot be learned: all {len(labels)} {part} images {state}; "
                "expected both kinds"
            )
