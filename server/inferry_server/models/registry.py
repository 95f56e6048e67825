"""Which versions are there, and which of them answer."""

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass

from inferry_server.errors import InvalidRequestError, ModelNotFoundError, ModelNotReadyError
from inferry_server.models.repository import is_version_number
from inferry_server.models.version import ServedVersion


class State(enum.StrEnum):
    """What a version is doing; the names are Triton's."""

    READY = "READY"
    LOADING = "LOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class IndexEntry:
    """One version as the repository index shows it.

    Attributes:
        version: 0 for a model without versions.
        reason: why it does not answer.
        served: the version itself, while it answers.
        failed: it should answer, and could not be loaded.
    """

    model: str
    version: int
    state: State
    reason: str = ""
    served: ServedVersion | None = None
    failed: bool = False

    @property
    def version_text(self) -> str:
        """The version as the protocol writes it; empty where the model has none."""
        return str(self.version) if self.version else ""


class ModelRegistry:
    """Every version that is known, with its state. Thread-safe: readers see whole entries.

    Args:
        changed: called after every change, without a lock held.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, IndexEntry]] = {}  # by name and version_text

    def put(self, entry: IndexEntry) -> None:
        """Set what is known of a version."""
        with self._lock:
            versions = dict(self._models.get(entry.model, {}))
            versions[entry.version_text] = entry
            self._models = {**self._models, entry.model: versions}  # readers keep the one they hold
        self._changed()

    def index(self) -> list[IndexEntry]:
        """Every version, by model and number."""
        models = self._models
        return [entry for name in sorted(models) for entry in _ascending(models[name])]

    def served(self) -> list[ServedVersion]:
        """Every version that answers."""
        return [entry.served for entry in self.index() if entry.served is not None]

    def is_ready(self, model: str) -> bool | None:
        """Whether some version of a model answers; None if the model is unknown."""
        versions = self._models.get(model)
        return None if versions is None else any(entry.served for entry in versions.values())

    def ready_versions(self, model: str) -> list[str]:
        """The versions of a model that answer, ascending."""
        return [entry.version_text for entry in _ascending(self._models.get(model, {})) if entry.served]

    def find(self, model: str, version: str) -> ServedVersion:
        """The version that answers a request.

        Args:
            model: its name.
            version: a number; empty for the newest that is ready.

        Raises:
            InvalidRequestError: the version is not a positive integer.
            ModelNotFoundError: no such model or version.
            ModelNotReadyError: it is there but does not answer.
        """
        if version and not is_version_number(version):
            raise InvalidRequestError(f"version {version!r} of model {model!r} is not a positive integer")
        versions = self._models.get(model)
        if versions is None:
            raise ModelNotFoundError(model)
        if version:
            entry = versions.get(version)
            if entry is None:
                raise ModelNotFoundError(model, version)
        else:
            entry = _preferred(versions)
        if entry.served is None:
            raise ModelNotReadyError(model, entry.version_text, state=entry.state, reason=entry.reason)
        return entry.served


def _ascending(versions: dict[str, IndexEntry]) -> list[IndexEntry]:
    return sorted(versions.values(), key=lambda entry: entry.version)


def _preferred(versions: dict[str, IndexEntry]) -> IndexEntry:
    """The newest that answers, else the newest, whose reason is what a caller needs to hear."""
    newest_first = _ascending(versions)[::-1]
    return next((entry for entry in newest_first if entry.served), newest_first[0])
