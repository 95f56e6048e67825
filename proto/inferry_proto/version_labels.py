"""Labels of a model's versions (`stable`, `canary`) and the traffic between them, beside the versions."""

import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import json_format

from inferry_proto.files import read_text
from inferry_proto.manifest_pb2 import VersionLabels

LABELS_FILE = "version_labels.json"
_LABEL = re.compile(r"[a-z][a-z0-9._-]{0,62}")  # never a number, which is a version


class VersionLabelsError(ValueError):
    """A label that is none, or a file of labels that cannot be read."""


def is_label(text: str) -> bool:
    """Whether a text can be a label."""
    return _LABEL.fullmatch(text) is not None


def check_label(label: str) -> None:
    """Refuse what cannot be told from a version, or would not be a name in every tool.

    Raises:
        VersionLabelsError: says what a label may be.
    """
    if not is_label(label):
        raise VersionLabelsError(
            f"{label!r} cannot be a label; expected 1 to 63 of a-z 0-9 . _ -, the first a letter, like canary"
        )


def read_version_labels(model_folder: Path) -> dict[str, int]:
    """The labels of a model, by name; empty where it has none.

    Raises:
        VersionLabelsError: as `read_labels_and_traffic`.
    """
    return dict(read_labels_and_traffic(model_folder).labels)


def read_labels_and_traffic(model_folder: Path) -> VersionLabels:
    """The labels of a model and the weights of the traffic between them; empty where it has none.

    Raises:
        VersionLabelsError: not the JSON of VersionLabels, a label that cannot be one, a weight for a
            label that is not there, or weights that are all 0.
    """
    path = model_folder / LABELS_FILE
    try:
        message = json_format.Parse(read_text(path), VersionLabels())
        _check(message)
    except FileNotFoundError:
        return VersionLabels()
    except (OSError, UnicodeDecodeError, json_format.ParseError, VersionLabelsError) as error:
        raise VersionLabelsError(f"{path} holds no version labels: {error}") from error
    return message


def write_version_labels(
    model_folder: Path, labels: Mapping[str, int], traffic: Mapping[str, int] | None = None
) -> None:
    """Replace a model's labels, all at once: a reader sees the old ones or the new ones.

    Args:
        model_folder: holds the versions.
        labels: versions by label.
        traffic: weights by label; None keeps those of labels that stay.

    Raises:
        VersionLabelsError: what `read_labels_and_traffic` would not read.
        OSError: the file cannot be written; the old one is still there.
    """
    if traffic is None:
        kept = read_labels_and_traffic(model_folder).traffic
        traffic = {label: weight for label, weight in kept.items() if label in labels}
        traffic = traffic if any(traffic.values()) else {}
    message = VersionLabels(labels=labels, traffic=traffic)
    _check(message)
    text = json_format.MessageToJson(message, preserving_proto_field_name=True)
    written = model_folder / f".{LABELS_FILE}-{uuid.uuid4().hex}"
    try:
        with written.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        written.replace(model_folder / LABELS_FILE)
    finally:
        written.unlink(missing_ok=True)


def _check(message: VersionLabels) -> None:
    for label in message.labels:
        check_label(label)
    for label in message.traffic:
        if label not in message.labels:
            raise VersionLabelsError(f"there is a weight for {label!r}, which is no label of the model")
    if message.traffic and not any(message.traffic.values()):
        raise VersionLabelsError("all weights are 0; expected one above 0")
