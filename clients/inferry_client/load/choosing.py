"""Which pictures of a folder are sent, where there are more than a test keeps."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


def spread(files: Sequence[Path], most: int) -> list[Path]:
    """At most so many files, of every folder as many, and evenly spaced within it.

    Folders take turns in what comes out, so that also a test which ends early has sent some of each. Where folders
    hold unequal numbers, the larger ones have the places that the smaller ones leave.

    Args:
        files: in the order of their paths.
        most: files.
    """
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in files:
        by_folder[file.parent].append(file)
    folders = _evenly(list(by_folder.values()), most)
    chosen: dict[Path, Sequence[Path]] = {}
    left = most
    for place, folder in enumerate(sorted(folders, key=len)):
        share = left // (len(folders) - place)  # of those that are no smaller
        chosen[folder[0].parent] = _evenly(folder, share)
        left -= len(chosen[folder[0].parent])
    in_turns = zip_longest(*(chosen[folder[0].parent] for folder in folders))
    return [file for turn in in_turns for file in turn if file is not None]


def _evenly(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of them, at equal distances, in their order."""
    if len(items) <= most:
        return items
    return [items[number * len(items) // most] for number in range(most)]
