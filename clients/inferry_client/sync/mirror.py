"""The copy. A version is written beside the others, checked, synced and renamed: a server sees all of it or nothing.

New versions are copied first, then the labels that name them (`version_labels.json`); what the store no longer has is
removed last. So at no moment does a label name a version that is missing.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferry_client.sync.errors import SyncError
from inferry_client.sync.layout import StoredModel, StoredObject, differences, read_layout
from inferry_client.sync.store import Store
from inferry_proto.manifest import ManifestError, read_manifest, verify_files
from inferry_proto.version_labels import LABELS_FILE, VersionLabelsError, read_version_labels

_HIDDEN = ".syncing-"  # servers pass over folders that begin with a dot
_LOCK = ".sync-lock"


class Mirror:
    """A copy of a store. One thread uses it.

    Args:
        store: read from.
        folder: the copy; made where it is missing.
        delete: whether what is gone from the store goes from the copy.
    """

    def __init__(self, store: Store, folder: Path, *, delete: bool) -> None:
        self._store, self._folder, self._delete = store, folder, delete
        self._tags: dict[str, str] = {}  # of what was copied, by path
        self.notes: list[str] = []
        self.changes: list[str] = []

    @contextmanager
    def owned(self) -> Iterator[None]:
        """The copy for one process alone; what a killed one left half done is removed.

        Raises:
            SyncError: another process copies into the folder, or it cannot be written to.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / _LOCK).open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for left in self._folder.glob(f"*/{_HIDDEN}*"):
                    shutil.rmtree(left, ignore_errors=True)
                yield
        except BlockingIOError as error:
            raise SyncError(f"another process copies into {self._folder}") from error
        except OSError as error:
            raise SyncError(f"{error.filename or self._folder}: {error.strerror or error}") from error

    def look(self) -> int:
        """Copy what is new; `changes` and `notes` tell what was done and what could not be.

        Returns:
            How many versions are in the copy.

        Raises:
            SyncError: the store cannot be read, or the copy cannot be written.
        """
        self.changes, self.notes = [], []
        models = read_layout(self._store.objects())
        try:
            for name in sorted(models):
                self._copy_model(name, models[name])
            if self._delete:
                self._remove_gone(models)
            return sum(1 for path in self._folder.glob("*/*") if path.is_dir() and path.name.isdigit())
        except OSError as error:
            raise SyncError(f"{error.filename or self._folder}: {error.strerror or error}") from error

    def _copy_model(self, name: str, model: StoredModel) -> None:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        for version in sorted(model.versions, key=lambda one: (int(one), one)):
            stored = model.versions[version]
            if (folder / version).exists():
                self._compare(folder / version, stored)
            else:
                self._copy_version(folder / version, stored)
        for file in sorted(model.files):
            self._copy_file(folder, file, model.files[file])

    def _compare(self, version: Path, stored: dict[str, StoredObject]) -> None:
        """Note a version that the store has changed since it was published: the copy keeps what was checked."""
        here = {str(path.relative_to(version)): path.stat().st_size for path in version.rglob("*") if path.is_file()}
        other = differences(here, stored)
        other += [path for path, one in stored.items() if self._tags.get(one.path, one.tag) != one.tag]
        if other:
            self.notes.append(
                f"{self._named(version)} is another in the store ({other[0]}), and the copy stays as it is: "
                "publish what changed as a new version"
            )

    def _copy_version(self, version: Path, stored: dict[str, StoredObject]) -> None:
        with self._beside(version) as hidden:
            for path, one in stored.items():
                self._write(hidden / path, one)
            if (fault := self._fault(version, hidden, stored)) is not None:
                self.notes.append(f"{self._named(version)} is not taken: {fault}")
                return
            _sync_tree(hidden)
            hidden.rename(version)
            _sync(version.parent)
        self._tags |= {one.path: one.tag for one in stored.values()}
        self.changes.append(f"{self._named(version)} copied")

    def _fault(self, version: Path, hidden: Path, stored: dict[str, StoredObject]) -> str | None:
        """Why a copy is not whole, by its manifest; without one, two listings of the store must be the same."""
        try:
            manifest = read_manifest(hidden)
            if manifest is not None:
                verify_files(hidden, manifest)  # guard: sync-version-verified
        except ManifestError as error:
            return str(error).replace(f"{hidden}/", "")
        written = {str(path.relative_to(hidden)): path.stat().st_size for path in hidden.rglob("*") if path.is_file()}
        if other := differences(written, stored):
            return f"{other[0]} changed while it was read"
        now = read_layout(self._store.objects()).get(version.parent.name, StoredModel())
        if now.versions.get(version.name) != stored:  # guard: sync-version-at-rest
            return "it changed while it was read"
        return None

    def _copy_file(self, folder: Path, name: str, one: StoredObject) -> None:
        path = folder / name
        if path.is_file() and self._tags.get(one.path) == one.tag != "":
            return
        with self._beside(path) as hidden:
            self._write(hidden / name, one)
            if name == LABELS_FILE and (fault := _labels_fault(folder, hidden)) is not None:
                self.notes.append(f"{folder.name}/{name} is not taken: {fault}")
                return
            new = not path.is_file() or path.read_bytes() != (hidden / name).read_bytes()
            if new:
                (hidden / name).replace(path)
                _sync(folder)
                self.changes.append(f"{folder.name}/{name} copied")
        self._tags[one.path] = one.tag

    def _remove_gone(self, models: dict[str, StoredModel]) -> None:
        """A store without any object is taken for a mistake: then nothing is removed."""
        if not any(model.versions for model in models.values()):  # guard: sync-empty-store
            self.notes.append("the store holds no version, and the copy stays as it is")
            return
        for path in sorted(self._folder.glob("*/*")):
            model = models.get(path.parent.name, StoredModel())
            if path.name.startswith(".") or path.name in model.versions or path.name in model.files:
                continue
            with self._beside(path) as hidden:
                path.rename(hidden / path.name)
            self.changes.append(f"{self._named(path)} removed")

    def _write(self, path: Path, one: StoredObject) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for piece in self._store.read(one):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _beside(self, path: Path) -> Iterator[Path]:
        """A hidden folder beside a path, which goes afterwards if it is still there."""
        hidden = path.parent / f"{_HIDDEN}{uuid.uuid4().hex}"
        hidden.mkdir()
        try:
            yield hidden
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def _named(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"


def _labels_fault(folder: Path, hidden: Path) -> str | None:
    """Why labels cannot be copied: the file holds none, or a version that they name is missing still."""
    try:
        labels = read_version_labels(hidden)
    except VersionLabelsError as error:
        return str(error).replace(f"{hidden}/", "")
    missing = sorted(label for label, version in labels.items() if not (folder / str(version)).is_dir())
    return (
        f"{missing[0]} names version {labels[missing[0]]}, which is not here" if missing else None
    )  # guard: sync-labels


def _sync_tree(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):  # the files are synced as they are written
        _sync(Path(parent))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
