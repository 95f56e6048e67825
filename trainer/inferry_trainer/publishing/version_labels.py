"""Labels of published versions: `canary` points at the one that was just published."""

from pathlib import Path

from inferry_proto.version_labels import VersionLabelsError, check_label, read_version_labels, write_version_labels
from inferry_trainer.errors import PublishError


def check_new_label(label: str) -> None:
    """Refuse what cannot be a label, before any work.

    Raises:
        PublishError: says what a label may be.
    """
    try:
        check_label(label)
    except VersionLabelsError as error:
        raise PublishError(str(error)) from error


def point_label_at(version: Path, label: str) -> None:
    """Let a label name a published version; it no longer names the one before.

    Raises:
        PublishError: the labels that are there cannot be read, or the new ones not written.
    """
    try:
        labels = read_version_labels(version.parent)
        write_version_labels(version.parent, labels | {label: int(version.name)})
    except (VersionLabelsError, OSError) as error:
        raise PublishError(f"{version} is published, but could not be labelled {label!r}: {error}") from error
