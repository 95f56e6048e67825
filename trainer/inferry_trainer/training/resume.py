"""How a run finds its folder: empty, finished, or interrupted; and where an interrupted one goes on."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from inferry_trainer.config import RunConfig
from inferry_trainer.errors import ConfigError, RunFolderError
from inferry_trainer.training.checkpoint import STATE, Checkpoint, read_checkpoint
from inferry_trainer.training.description import RunDescription
from inferry_trainer.training.run_folder import MODEL
from inferry_trainer.training.train import is_over

CHECKPOINT, TENSORBOARD = "checkpoint", "tensorboard"
_DESCRIPTION = "run.json"
_PROBE = ".probe"


@contextmanager
def run_folder_for(folder: Path, *, overwrite: bool, resume: bool) -> Iterator[None]:
    """A folder for a run, checked before any work is done for it; it goes again if nothing was put there.

    Raises:
        RunFolderError: it holds another run, is not a folder, or cannot be written to.
    """
    if not (overwrite or resume):
        _check_free(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / _PROBE
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise RunFolderError(f"{folder} cannot be written to as a run folder: {error.strerror or error}") from error
        yield
    except BaseException:
        _remove_empty(made)
        raise


def begin_run(folder: Path, description: RunDescription) -> None:
    """Note what a new run is made from, for those who take it up again; what an older run left for that goes.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        for name in (CHECKPOINT, TENSORBOARD):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / CHECKPOINT).mkdir()
        _write_description(folder, description)
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be written to: {error.strerror or error}") from error


def resume_run(folder: Path, description: RunDescription) -> Checkpoint:
    """Where an interrupted run goes on, if it is the same run.

    A run of a constant learning rate may go on for more epochs than it first had; on a schedule the
    epochs so far would have been others.

    Args:
        folder: of the run.
        description: of what it is made from now.

    Raises:
        RunFolderError: there is nothing to go on with, or nothing left to do.
        ConfigError: settings or data are not those the run began with; names them.
    """
    checkpoint = read_checkpoint(folder / CHECKPOINT)
    _check_same(_read_description(folder), description)
    done = len(checkpoint.records)
    if is_over(checkpoint.records, description.config) and (folder / MODEL).exists():
        raise RunFolderError(
            f"{folder} is finished: {done} epochs are done; where the learning rate is constant, more are trained "
            "with a larger --epochs"
        )
    _write_description(folder, description)
    return checkpoint


def _check_free(folder: Path) -> None:
    if (folder / MODEL).exists():
        raise RunFolderError(
            f"{folder} already holds a model; name another folder with --out, or replace it with --overwrite"
        )
    if (folder / CHECKPOINT / STATE).exists():
        raise RunFolderError(
            f"{folder} holds a run that was interrupted; go on with --resume, or start anew with --overwrite"
        )


def _check_same(before: RunDescription, now: RunDescription) -> None:
    if now.config.epochs != before.config.epochs and now.config.schedule == "constant":
        before = replace(before, config=replace(before.config, epochs=now.config.epochs))
    changed = [f"{name} was {was}, is {is_}" for name, was, is_ in _pairs(before.config, now.config) if was != is_]
    if before.dataset_sha256 != now.dataset_sha256:
        changed.append("the images are others")
    if changed:
        raise ConfigError(
            f"this is not the run that was interrupted: {'; '.join(changed)}. Give the settings it began with, or "
            "start anew with --overwrite"
        )


def _pairs(before: RunConfig, now: RunConfig) -> Iterator[tuple[str, object, object]]:
    was, is_ = asdict(before), asdict(now)
    for name in was:
        yield name, was[name], is_[name]


def _write_description(folder: Path, description: RunDescription) -> None:
    text = json.dumps(description.to_json(), indent=2) + "\n"
    (folder / CHECKPOINT / _DESCRIPTION).write_text(text, encoding="utf-8")


def _read_description(folder: Path) -> RunDescription:
    path = folder / CHECKPOINT / _DESCRIPTION
    try:
        return RunDescription.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}; start again with --overwrite") from error


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return  # something lies there, or it was never made
