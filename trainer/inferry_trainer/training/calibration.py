"""Training images that a run sets aside for choosing int8 ranges, so that an export needs no data set."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.datasets import AnyPart
from inferry_trainer.errors import RunFolderError

CALIBRATION = "calibration.npz"
IMAGES = 1024  # one half calibrates, the other chooses between ways of calibrating


def choose_calibration_images(train: AnyPart, *, seed: int) -> UInt8Array:
    """Up to 1,024 training images, drawn without regard to their labels; in the order they are drawn."""
    chosen = np.random.default_rng(seed).choice(len(train), min(IMAGES, len(train)), replace=False)
    return train.select(chosen).prepare().images


def write_calibration_images(folder: Path, images: UInt8Array) -> None:
    """Write them into a run folder."""
    np.savez_compressed(folder / CALIBRATION, images=images)


def read_calibration_images(folder: Path) -> UInt8Array | None:
    """What `write_calibration_images` wrote; None where a run has none.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = folder / CALIBRATION
    try:
        with np.load(path, allow_pickle=False) as file:
            images: UInt8Array = file["images"]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RunFolderError(f"{path} cannot be read as calibration images: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4:
        raise RunFolderError(f"{path} holds {images.dtype} {images.shape}; expected uint8 (N, H, W, C)")
    return images
