"""What is served where a model key is set: private copies of signed files, verified after they were copied."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from inferry_proto.signing import SignatureError, check_public_key, verified_settings, verify_version
from inferry_server.errors import ModelLoadError, StartError
from inferry_server.models.repository import VersionFolder


def checked_model_key(path: Path | None) -> Path | None:
    """The setting, once it is known that it can verify signatures.

    Raises:
        StartError: it cannot.
    """
    if path is not None:
        try:
            check_public_key(path)
        except SignatureError as error:
            raise StartError(f"setting model_key: {error}") from error
    return path


@contextmanager
def trusted_settings(model: Path, model_key: Path | None) -> Iterator[Path]:
    """A model's folder as its settings and labels may be read: itself without a key, else a verified copy of them.

    Raises:
        ModelLoadError: they are not signed with that key.
    """
    if model_key is None:
        yield model
        return
    try:
        with verified_settings(model, model_key) as copied:
            yield copied
    except SignatureError as error:
        raise ModelLoadError(str(error)) from error


@contextmanager
def trusted(folder: VersionFolder, model_key: Path | None) -> Iterator[VersionFolder]:
    """A version as it may be loaded: as it lies there without a key; else a verified copy, gone on leaving.

    Whoever may write to the repository changes nothing of a copy between its verification and its loading.

    Args:
        folder: the version's; the files above it are copied too.
        model_key: a public key in PEM, or None.

    Raises:
        ModelLoadError: the version, or its model's settings, are not signed with that key, or cannot be copied.
    """
    if model_key is None:
        yield folder
        return
    model = folder.path.parent
    with trusted_settings(model, model_key) as copied:
        try:
            version = replace(folder, path=copied / folder.path.name)
            _copy(folder.path, version.path)
            verify_version(version.path, model_key, model=folder.model)  # guard: signed-version
            yield version
        except (SignatureError, ModelLoadError) as error:
            raise ModelLoadError(str(error).replace(str(copied), str(model))) from error


def _copy(version: Path, target: Path) -> None:
    """All files of a version, where there is room for them. Links stay links, which no signature covers."""
    try:
        needed = sum(path.lstat().st_size for path in version.rglob("*"))
        room = shutil.disk_usage(tempfile.gettempdir()).free
        if needed > room:
            raise OSError(errno.ENOSPC, f"it needs {needed} bytes, and {tempfile.gettempdir()} has room for {room}")
        shutil.copytree(version, target, symlinks=True)
    except (OSError, shutil.Error) as error:
        raise SignatureError(f"{version} cannot be copied to be verified: {error}") from error
