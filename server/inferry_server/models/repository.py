"""What lies in a model repository: Triton's layout, <repository>/<model>/<version>/model.onnx."""

from dataclasses import dataclass
from pathlib import Path

from inferry_server.errors import StartError

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
    """One model on disk; its versions ascend."""

    name: str
    path: Path
    versions: tuple[VersionFolder, ...]


def scan_repository(root: Path) -> tuple[ModelFolder, ...]:
    """Every model folder, by name. Hidden folders are publications under way, and not looked at.

    Raises:
        StartError: the repository is not a folder, or holds no model folder.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise StartError(f"model repository {root} {what}; expected a folder with <model>/<version>/{MODEL_FILE}")
    try:
        folders = tuple(_model_folder(path) for path in sorted(root.iterdir()) if _is_visible_folder(path))
    except OSError as error:
        raise StartError(f"model repository {root} cannot be read: {error.strerror}") from error
    if not folders:
        raise StartError(f"model repository {root} holds no model; expected <model>/<version>/{MODEL_FILE} in it")
    return folders


def _model_folder(path: Path) -> ModelFolder:
    versions = sorted(
        (
            VersionFolder(path.name, int(child.name), child)
            for child in path.iterdir()
            if _is_visible_folder(child) and is_version_number(child.name)
        ),
        key=lambda folder: folder.version,
    )
    return ModelFolder(path.name, path, tuple(versions))


def is_version_number(text: str) -> bool:
    """Whether a text is a positive integer as versions are written: `1`, not `01`, `+1` or `1x`."""
    return text.isascii() and text.isdigit() and not text.startswith("0")


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")
