"""Pictures that judge a model: a folder for each of its labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.datasets import FilePart, Part
from inferry_trainer.datasets.folder import SUFFIXES, find_pictures, is_hidden
from inferry_trainer.errors import DatasetError, name_some


def read_labelled_folder(folder: Path, labels: Sequence[str], spec: Preprocessing) -> Part:
    """Every picture of `find_labelled_pictures`, through the preprocessing that production uses.

    Raises:
        DatasetError: as it does, or a picture is unreadable.
    """
    return find_labelled_pictures(folder, labels, spec).prepare()


def find_labelled_pictures(folder: Path, labels: Sequence[str], spec: Preprocessing) -> FilePart:
    """Every picture below `folder/<label>/`.

    Args:
        folder: holds a folder for each label, and no other.
        labels: line i names class i.
        spec: what a picture becomes before the model sees it.

    Raises:
        DatasetError: a label without folder or pictures, a folder that is no label.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; expected one that holds a folder for each label")
    found = {path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)}
    missing, foreign = [label for label in labels if label not in found], sorted(found - set(labels))
    if missing or foreign:
        raise DatasetError(
            f"{folder} does not hold a folder for each label: "
            + "; ".join(
                text
                for text in (
                    f"missing {name_some(missing)}" if missing else "",
                    f"no label is called {name_some(foreign)}" if foreign else "",
                )
                if text
            )
        )
    files, classes = [], []
    for index, label in enumerate(labels):
        pictures = find_pictures(folder / label)
        if not pictures:
            raise DatasetError(f"{folder / label} holds no picture ({', '.join(SUFFIXES)})")
        files += pictures
        classes += [index] * len(pictures)
    return FilePart(tuple(files), np.array(classes, np.int64), spec)
