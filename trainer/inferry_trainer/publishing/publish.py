"""Putting a version into a model repository so that a server sees all of it or nothing."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inferry_trainer.errors import PublishError

# Servers pass over folders that begin with a dot.
_HIDDEN_PREFIX = ".publishing-"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def check_model_name(name: str) -> None:
    """Refuse what cannot be a folder of the repository and a model's name in every tool.

    Raises:
        PublishError: says what a name may be.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise PublishError(
            f"{name!r} cannot be a model's name; expected 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        )


def publish_version(
    repository: Path, model: str, write: Callable[[Path], None], *, seal: Callable[[Path], None] | None = None
) -> Path:
    """Publish the next version of a model.

    The version is written into a hidden folder beside the others, synced to disk, and renamed:
    a reader finds a whole version or none, also after a power cut. Versions are never overwritten;
    of two publishers at the same moment each gets its own number. Whatever fails, the hidden
    folder goes.

    Args:
        repository: the folder that holds a folder for each model; made where it does not exist.
        model: the model's name.
        write: fills the folder it is given with the version's files.
        seal: puts the last files into it, which name the number: bill of materials, signature. The folder it is given
            has the version's number for a name. It is called anew where that number was taken meanwhile.

    Returns:
        The published folder, `<repository>/<model>/<version>`.

    Raises:
        PublishError: the name is not one, or the repository cannot be written to.
    """
    check_model_name(model)
    try:
        with _folder(repository / model) as model_folder:
            hidden = model_folder / f"{_HIDDEN_PREFIX}{uuid.uuid4().hex}"
            try:
                made = hidden / "version"
                made.mkdir(parents=True)
                write(made)
                version = _rename_to_next_version(made, model_folder, seal or _leave)
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
            for folder in (model_folder, repository, repository.parent):
                _sync(folder)
            return version
    except OSError as error:
        raise PublishError(
            f"nothing was published: {error.filename or repository / model}: {error.strerror or error}; "
            "expected a folder with room that can be written to"
        ) from error


def _rename_to_next_version(made: Path, model_folder: Path, seal: Callable[[Path], None]) -> Path:
    number = max((int(entry.name) for entry in model_folder.iterdir() if _is_number(entry.name)), default=0) + 1
    while True:
        made = made.rename(made.with_name(str(number)))
        seal(made)
        _sync_tree(made)
        try:
            # Takes the place of nothing but an empty folder, and no version is empty.
            return made.rename(model_folder / str(number))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            number += 1  # another publisher was faster


def _leave(folder: Path) -> None:
    """As it is."""


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A folder that exists; what was made for it goes again if nothing was put there."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    except BaseException:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                break  # another publisher is at work in it
        raise


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
