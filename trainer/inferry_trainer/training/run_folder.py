"""The folder a run leaves behind: the model, what it was made from, and what it came to."""

import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np

from inferry_proto.foreign_errors import first_line
from inferry_trainer.arrays import UInt8Array
from inferry_trainer.datasets import Part
from inferry_trainer.errors import RunFolderError
from inferry_trainer.training.calibration import read_calibration_images, write_calibration_images
from inferry_trainer.training.description import RunDescription
from inferry_trainer.training.records import EpochRecord

MODEL, HISTORY, METRICS, CONFIG = "model.keras", "history.csv", "metrics.json", "config.json"
HELD_OUT, REPORT, MODEL_CARD = "heldout.npz", "report.html", "MODEL_CARD.md"
_PARTIAL = ".partial.keras"

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a run folder holds for export.

    Attributes:
        model: the trained Keras model.
        test: the whole test set; the model was never fitted to it.
        description: what it was made from.
        test_accuracy: what was measured when it was trained; fraction of 1.
        test_loss: likewise; None where it was not recorded.
        calibration: `(N, H, W, C)` uint8 training images for int8; None where the run has none.
    """

    model: Any
    test: Part
    description: RunDescription
    test_accuracy: float
    test_loss: float | None = None
    calibration: UInt8Array | None = None


def write_run_folder(
    folder: Path,
    *,
    model: Any,
    history: list[EpochRecord],
    test: Part,
    description: RunDescription,
    metrics: Mapping[str, float],
    report: str,
    model_card: str,
    calibration: UInt8Array | None = None,
) -> None:
    """Write a finished run; the model last, by a rename, so that a folder with a model is whole.

    Raises:
        RunFolderError: a file cannot be written.
    """
    try:
        (folder / MODEL).unlink(missing_ok=True)
        _write_history(folder / HISTORY, history)
        (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        (folder / CONFIG).write_text(json.dumps(description.to_json(), indent=2) + "\n", encoding="utf-8")
        (folder / REPORT).write_text(report, encoding="utf-8")
        (folder / MODEL_CARD).write_text(model_card, encoding="utf-8")
        np.savez_compressed(folder / HELD_OUT, images=test.images, labels=test.labels)
        if calibration is not None:
            write_calibration_images(folder, calibration)
        model.save(folder / _PARTIAL)
        (folder / _PARTIAL).rename(folder / MODEL)
    except OSError as error:
        (folder / _PARTIAL).unlink(missing_ok=True)
        raise RunFolderError(f"{folder}: the run could not be saved: {error.strerror or error}") from error


def read_run_folder(folder: Path) -> FinishedRun:
    """Read what `write_run_folder` wrote.

    Raises:
        RunFolderError: a file is missing or damaged; names it.
    """
    for name in (MODEL, HELD_OUT, CONFIG, METRICS):
        if not (folder / name).is_file():
            raise RunFolderError(
                f"{folder} is not a finished run: {name} is missing; "
                "make one with `inferry-train run DATASET --out DIR`"
            )
    return FinishedRun(
        model=_load_model(folder / MODEL),
        test=_load_held_out(folder / HELD_OUT),
        description=_load_json(folder / CONFIG, RunDescription.from_json),
        test_accuracy=_load_json(folder / METRICS, lambda metrics: float(metrics["test_accuracy"])),
        test_loss=_load_json(folder / METRICS, lambda metrics: metrics.get("test_loss")),
        calibration=read_calibration_images(folder),
    )


def _write_history(path: Path, history: list[EpochRecord]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(record) for record in history)


def _load_model(path: Path) -> Any:
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever a damaged archive leads it to
        raise RunFolderError(f"{path} cannot be loaded as a Keras model: {first_line(error)}") from error


def _load_held_out(path: Path) -> Part:
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
        if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            raise ValueError(f"expected uint8 images and integer labels, {images.dtype} and {labels.dtype} came")
        return Part(images, labels.astype(np.int64))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RunFolderError(f"{path} cannot be read as held-out images: {first_line(error)}") from error


def _load_json(path: Path, convert: Callable[[dict[str, Any]], T]) -> T:
    try:
        return convert(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is not what a run writes: {type(error).__name__}: {first_line(error)}") from error
