"""What a repository holds, a line a version, from manifests alone."""

from collections.abc import Sequence
from pathlib import Path

from inferry_proto.manifest_pb2 import ModelManifest
from inferry_proto.version_labels import VersionLabelsError, read_version_labels
from inferry_trainer.errors import GateError
from inferry_trainer.publishing.catalog import MODEL_FILE, find_versions, manifest_of
from inferry_trainer.workflow import Say

_HEAD = ("MODEL", "VERSION", "LABELS", "PRECISION", "ACCURACY", "IMAGES", "SIZE", "LATENCY", "CREATED")


def list_path(path: Path, *, say: Say) -> None:
    """Say what is published at a path.

    Args:
        path: a repository, a model or a version.
        say: told the table, a line at a time.

    Raises:
        PublishError: there is no version.
    """
    rows = [_HEAD, *(_row(version) for version in find_versions(path))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(version: Path) -> Sequence[str]:
    size = f"{_bytes(version) / 1e6:.1f} MB"
    labels = ",".join(sorted(_labels(version))) or "-"
    try:
        manifest = manifest_of(version)
    except GateError as error:
        return version.parent.name, version.name, labels, "-", _why(error), "-", size, "-", "-"
    return (
        version.parent.name,
        version.name,
        labels,
        manifest.precision,
        _accuracy(manifest),
        f"{manifest.evaluation.test_images:,}" if manifest.HasField("evaluation") else "-",
        size,
        _latency(manifest),
        manifest.provenance.created_at or "-",
    )


def _accuracy(manifest: ModelManifest) -> str:
    if manifest.unverified or "test_accuracy" not in manifest.evaluation.metrics:
        return "unverified"
    return f"{manifest.evaluation.metrics['test_accuracy']:.2%}"


def _latency(manifest: ModelManifest) -> str:
    if not manifest.HasField("latency"):
        return "-"
    return f"{manifest.latency.fixed_ms:.2f} + {manifest.latency.per_image_ms:.3f} n ms"


def _labels(version: Path) -> list[str]:
    try:
        return [label for label, number in read_version_labels(version.parent).items() if str(number) == version.name]
    except VersionLabelsError:
        return ["(unreadable)"]


def _bytes(version: Path) -> int:
    path = version / MODEL_FILE
    return path.stat().st_size if path.is_file() else 0


def _why(error: GateError) -> str:
    return "no manifest" if "is missing" in error.message else "damaged manifest"
