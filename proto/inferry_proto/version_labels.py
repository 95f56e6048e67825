"""Labels of a model's versions (`stable`, `canary`), kept beside the versions themselves."""

import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import json_format

from inferry_proto.manifest_pb2 import VersionLabels

LABELS_FILE = "version_labels.json"
_LABEL = re.compile(r"[a-z][a-z0-9._-]{0,62}")  # never a number, which is a version


class VersionLabelsError(ValueError):
    """A label that is none, or a file of labels that cannot be read."""


def check_label(label: str) -> None:
    """Refuse what cannot be told from a version, or would not be a name in every tool.

    Raises:
        VersionLabelsError: says what a label may be.
    """
    if not _LABEL.fullmatch(label):
        raise VersionLabelsError(
            f"{label!r} cannot be a label; expected 1 to 63 of a-z 0-9 . _ -, the first a letter, like canary"
        )


def read_version_labels(model_folder: Path) -> dict[str, int]:
    """The labels of a model, by name; empty where it has none.

    Raises:
        VersionLabelsError: not the JSON of VersionLabels, or a label that cannot be one.
    """
    path = model_folder / LABELS_FILE
    try:
        labels = dict(json_format.Parse(path.read_text(encoding="utf-8"), VersionLabels()).labels)
        for label in labels:
            check_label(label)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, json_format.ParseError, VersionLabelsError) as error:
        raise VersionLabelsError(f"{path} holds no version labels: {error}") from error
    return labels


def write_version_labels(model_folder: Path, labels: Mapping[str, int]) -> None:
    """Replace a model's labels, all at once: a reader sees the old ones or the new ones.

    Raises:
        VersionLabelsError: a label that cannot be one.
        OSError: the file cannot be written; the old one is still there.
    """
    for label in labels:
        check_label(label)
    text = json_format.MessageToJson(VersionLabels(labels=labels), preserving_proto_field_name=True)
    written = model_folder / f".{LABELS_FILE}-{uuid.uuid4().hex}"
    try:
        with written.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        written.replace(model_folder / LABELS_FILE)
    finally:
        written.unlink(missing_ok=True)
