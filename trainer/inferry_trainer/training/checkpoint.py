"""What a training needs to go on as if it had never stopped: weights, optimizer, dropout, history.

Keras saves neither the state of the generators behind dropout nor, without the optimizer, the averages
and the position in the schedule. All of them are variables, and all variables are kept here.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_trainer.errors import RunFolderError
from inferry_trainer.training.records import EpochRecord

STATE = "state.npz"
_HISTORY, _BEST = "history", "best "


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state after an epoch.

    Attributes:
        records: of the epochs so far.
        variables: of model and optimizer, by position.
        best_weights: of the model in its best epoch; None where nobody asks for them.
    """

    records: tuple[EpochRecord, ...]
    variables: Mapping[str, NDArray[Any]]
    best_weights: list[NDArray[Any]] | None


def write_checkpoint(
    folder: Path, model: Any, records: Sequence[EpochRecord], *, best_weights: Sequence[NDArray[Any]] | None = None
) -> None:
    """Keep a compiled model's state; it takes the place of the one before by a rename.

    Raises:
        RunFolderError: it cannot be written.
    """
    history = json.dumps([asdict(record) for record in records])
    best = {f"{_BEST}{index:04}": weight for index, weight in enumerate(best_weights or ())}
    state = {name: np.asarray(variable) for name, variable in _numbered_variables(model).items()}
    _save(folder / STATE, {_HISTORY: np.array(history), **best, **state})


def read_checkpoint(folder: Path) -> Checkpoint:
    """What `write_checkpoint` wrote.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    path = folder / STATE
    if not path.exists():
        raise RunFolderError(f"{path} is missing: there is nothing to resume; start without --resume")
    arrays = _load(path)
    try:
        records = tuple(EpochRecord(**record) for record in json.loads(str(arrays.pop(_HISTORY))))
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is not a checkpoint: {error}; start again without --resume") from error
    best = [arrays.pop(name) for name in sorted(arrays) if name.startswith(_BEST)]
    return Checkpoint(records, arrays, best or None)


def restore_checkpoint(checkpoint: Checkpoint, model: Any) -> None:
    """Put a checkpoint's state into a model that was compiled as the one it was taken from.

    Raises:
        RunFolderError: it was taken from another network.
    """
    variables = _numbered_variables(model)
    if {name: value.shape for name, value in checkpoint.variables.items()} != {
        name: tuple(variable.shape) for name, variable in variables.items()
    }:
        raise RunFolderError("the checkpoint is of another network or optimizer; start again without --resume")
    for name, variable in variables.items():
        variable.assign(checkpoint.variables[name])


def _numbered_variables(model: Any) -> dict[str, Any]:
    """By position: Keras numbers the names of layers anew in each process."""
    variables = [*model.variables, *model.optimizer.variables]
    return {f"{index:04}": variable for index, variable in enumerate(variables)}


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    partial = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # a name is no keyword of savez's own
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}") from error


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RunFolderError(f"{path} cannot be read: {error}; start again without --resume") from error
