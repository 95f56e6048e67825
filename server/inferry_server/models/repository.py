"""What lies in a model repository: Triton's layout, <repository>/<model>/<version>/model.onnx."""

from dataclasses import dataclass
from pathlib import Path

from inferry_server.errors import InvalidRequestError, StartError

MODEL_FILE = "model.onnx"


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


def scan_repository(root: Path) -> tuple[ModelFolder, ...]:
    """Every model folder, by name.

    Hidden folders are publications under way, and `lost+found` is a file system's own: neither is
    looked at.

    Raises:
        StartError: the repository is not a folder, or holds no model folder.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise StartError(f"model repository {root} {what}; expected a folder with <model>/<version>/{MODEL_FILE}")
    try:
        paths = [path for path in sorted(root.iterdir()) if _is_visible_folder(path) and path.name != "lost+found"]
    except OSError as error:
        raise StartError(f"model repository {root} cannot be read: {error.strerror}") from error
    if not paths:
        raise StartError(f"model repository {root} holds no model; expected <model>/<version>/{MODEL_FILE} in it")
    return tuple(map(_model_folder, paths))


def find_model(root: Path, name: str) -> ModelFolder | None:
    """One model's folder; None where there is none.

    Raises:
        InvalidRequestError: the name is not that of a folder in the repository.
    """
    if not name or Path(name).name != name or name.startswith(".") or "\0" in name:  # guard: paths-model-name
        raise InvalidRequestError(f"model name {name!r} is not the name of a folder in the repository")
    path = root / name
    return _model_folder(path) if path.is_dir() else None


def _model_folder(path: Path) -> ModelFolder:
    try:
        children = [child for child in path.iterdir() if _is_visible_folder(child) and is_version_number(child.name)]
    except OSError as error:
        return ModelFolder(path.name, path, (), f"{path} cannot be read: {error.strerror}")
    versions = sorted((VersionFolder(path.name, int(child.name), child) for child in children), key=_number)
    problem = "" if versions else f"{path} holds no version; expected a folder named by a number, like 1"
    return ModelFolder(path.name, path, tuple(versions), problem)


def _number(folder: VersionFolder) -> int:
    return folder.version


def is_version_number(text: str) -> bool:
    """Whether a text is a positive integer as versions are written: `1`, not `01`, `+1` or `1x`."""
    return text.isascii() and text.isdigit() and not text.startswith("0")


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")
