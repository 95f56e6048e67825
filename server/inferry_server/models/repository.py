"""What lies in a model repository: Triton's layout, <repository>/<model>/<version>/model.onnx."""

import errno
import stat
from dataclasses import dataclass
from pathlib import Path

from inferry_proto.model_source import MODEL_FILE
from inferry_server.errors import InvalidRequestError, StartError


@dataclass(frozen=True)
class VersionFolder:
    """One version of one model on disk."""

    model: str
    version: int
    path: Path

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


@dataclass(frozen=True)
class ModelFolder:
    """One model on disk; its versions ascend.

    Attributes:
        problem: why there are no versions; empty where there are some.
    """

    name: str
    path: Path
    versions: tuple[VersionFolder, ...]
    problem: str = ""


def scan_repository(root: Path, *, may_be_empty: bool = False) -> tuple[ModelFolder, ...]:
    """Every model folder, by name.

    Hidden folders are publications under way, and `lost+found` is a file system's own: neither is
    looked at.

    Args:
        root: the repository.
        may_be_empty: whether a folder without models is a repository too.

    Raises:
        StartError: the repository is not a folder, cannot be listed, or holds no model folder.
    """
    try:
        if not _is_folder(root):
            what = "is a file" if root.exists() else "does not exist"
            raise StartError(
                f"model repository {readable(root)} {what}; expected a folder with <model>/<version>/{MODEL_FILE}"
            )
        paths = [path for path in sorted(root.iterdir()) if not path.name.startswith(".") and path.name != "lost+found"]
    except OSError as error:
        raise StartError(f"model repository {readable(root)} cannot be read: {error.strerror}") from error
    folders = tuple(folder for path in paths if (folder := _model_folder(path)) is not None)
    if not folders and not may_be_empty:
        raise StartError(
            f"model repository {readable(root)} holds no model; expected <model>/<version>/{MODEL_FILE} in it"
        )
    return folders


def find_model(root: Path, name: str) -> ModelFolder | None:
    """One model's folder; None where there is none.

    Raises:
        InvalidRequestError: the name is not that of a folder in the repository.
    """
    if not name or Path(name).name != name or name.startswith(".") or "\0" in name:  # guard: paths-model-name
        raise InvalidRequestError(f"model name {name!r} is not the name of a folder in the repository")
    return _model_folder(root / name)


def readable(text: str | Path) -> str:
    """A text that every protocol can carry: what of a file's name is not UTF-8 is written as an escape."""
    try:
        data = str(text).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        data = str(text).encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def _model_folder(path: Path) -> ModelFolder | None:
    """A model, or why it cannot be one; None for what is no folder."""
    name = readable(path.name)
    try:
        if not _is_folder(path):
            return None
        if name != path.name:  # guard: boundary-name
            return ModelFolder(name, path, (), f"{readable(path)}: its name is not UTF-8, so no request can name it")
        children = [child for child in path.iterdir() if is_version_number(child.name) and _is_folder(child)]
        versions = sorted((VersionFolder(name, int(child.name), child) for child in children), key=_number)
    except OSError as error:
        return ModelFolder(name, path, (), f"{readable(path)} cannot be read: {error.strerror}")
    problem = "" if versions else f"{readable(path)} holds no version; expected a folder named by a number, like 1"
    return ModelFolder(name, path, tuple(versions), problem)


def _number(folder: VersionFolder) -> int:
    return folder.version


def is_version_number(text: str) -> bool:
    """Whether a text is a positive integer as versions are written: `1`, not `01`, `+1` or `1x`."""
    return text.isascii() and text.isdigit() and not text.startswith("0")


def _is_folder(path: Path) -> bool:
    """Whether a path leads to a folder.

    Raises:
        OSError: it cannot be told, as where the folder above may not be searched.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in _NO_FILE:
            return False
        raise


_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
