"""Reads the labels of a model's versions, and logs labels that cannot be read once, not at every look at them."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from inferry_proto.files import read_file
from inferry_proto.manifest_pb2 import VersionLabels
from inferry_proto.version_labels import LABELS_FILE, VersionLabelsError, read_labels_and_traffic
from inferry_server.errors import ModelLoadError
from inferry_server.models.repository import ModelFolder
from inferry_server.models.signed import trusted_settings

logger = logging.getLogger(__name__)


class LabelsReader:
    """Reads labels as far as they are trusted. One thread at a time reads those of a model.

    Args:
        model_key: a public key in PEM that the labels must be signed for; None: they need no signature.
    """

    def __init__(self, model_key: Path | None) -> None:
        self._model_key = model_key
        self._told: dict[str, bytes] = {}  # by model: which fault of which files the log has

    def read(self, folder: ModelFolder) -> VersionLabels:
        """The labels on disk and the traffic between them; empty where the model has none.

        A fault is logged when it is found first, and again when the files that were read have changed or the fault
        is another one.

        Raises:
            ModelLoadError: the labels cannot be read, or are not signed with the key.
        """
        try:
            message = self._read(folder.path)
        except ModelLoadError as error:
            self._tell(folder, str(error))
            raise
        self.forget(folder.name)
        return message

    def forget(self, model: str) -> None:
        """A model has left the repository, or its labels can be read: its next fault is a new one."""
        self._told.pop(model, None)

    def _read(self, model: Path) -> VersionLabels:
        with trusted_settings(model, self._model_key) as settings:  # guard: signed-labels
            try:
                return read_labels_and_traffic(settings)
            except VersionLabelsError as error:
                raise ModelLoadError(str(error).replace(str(settings), str(model))) from error

    def _tell(self, folder: ModelFolder, fault: str) -> None:
        found = hashlib.sha256(fault.encode("utf-8", "backslashreplace"))
        for path in self._files(folder.path):
            found.update(b"\0" + _contents(path))
        if self._told.get(folder.name) != found.digest():  # guard: labels-told-once
            logger.error("labels not changed: %s", fault, extra={"model": folder.name})
        self._told[folder.name] = found.digest()

    def _files(self, model: Path) -> Iterator[Path]:
        """What is read for the labels: their file; with a key, everything that the signature covers, and itself."""
        if self._model_key is None:
            yield model / LABELS_FILE
            return
        try:
            yield from sorted(path for path in model.iterdir() if not path.name.startswith(".") and not path.is_dir())
        except OSError:  # the fault says so
            return


def _contents(path: Path) -> bytes:
    """What differs when a file has changed: the digest of its bytes, nothing where it cannot be read."""
    try:
        return hashlib.sha256(read_file(path)).digest()
    except OSError:  # the fault says so
        return b""
