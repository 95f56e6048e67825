"""What is published: versions on disk, found from a repository, a model or a version."""

from pathlib import Path

from inferry_proto.manifest import MANIFEST_FILE, ManifestError, read_manifest
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_trainer.errors import GateError, PublishError

MODEL_FILE = "model.onnx"


def find_versions(path: Path) -> list[Path]:
    """The versions at a path: itself, or those of a model, or those of every model of a repository.

    Returns:
        Version folders, models by name, versions ascending.

    Raises:
        PublishError: there is none.
    """
    if _is_version(path):
        return [path]
    found = versions_of(path)
    if not found and path.is_dir():
        found = [version for model in sorted(path.iterdir()) if model.is_dir() for version in versions_of(model)]
    if not found:
        what = "holds no version" if path.is_dir() else "is not a folder"
        raise PublishError(f"{path} {what}; expected <repository>, <repository>/<model> or <repository>/<model>/1")
    return found


def versions_of(model: Path) -> list[Path]:
    """The versions of one model, ascending; none where it is no folder, or hidden."""
    if not model.is_dir() or model.name.startswith("."):
        return []
    versions = [path for path in model.iterdir() if path.is_dir() and path.name.isascii() and path.name.isdigit()]
    return sorted(versions, key=lambda path: int(path.name))


def manifest_of(version: Path) -> ModelManifest:
    """A version's manifest.

    Raises:
        GateError: `manifest`: there is none, or it cannot be read.
    """
    try:
        manifest = read_manifest(version)
    except ManifestError as error:
        raise GateError("manifest", str(error)) from error
    if manifest is None:
        raise GateError(
            "manifest", f"{version / MANIFEST_FILE} is missing: nothing says what this model is; publish it again"
        )
    return manifest


def _is_version(path: Path) -> bool:
    return (path / MODEL_FILE).exists() or (path / MANIFEST_FILE).exists()
