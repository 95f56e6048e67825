"""Which versions are there, which of them answer, and which one answers a request."""

import enum
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from inferry_proto.version_labels import is_label
from inferry_server.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    ModelNotReadyError,
    ServingError,
    ShuttingDownError,
)
from inferry_server.lateness.record import Origin
from inferry_server.models.repository import is_version_number
from inferry_server.models.traffic import choose_label
from inferry_server.models.variants import variants_of
from inferry_server.models.version import ServedVersion

T = TypeVar("T")


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
        reason: why it does not answer, or answers in another way than it should.
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
    def remark(self) -> str:
        """The reason, also that of a version that answers."""
        return self.reason or (self.served.observer.unbatched_for if self.served else "")

    @property
    def version_text(self) -> str:
        """The version as the protocol writes it; empty where the model has none."""
        return str(self.version) if self.version else ""


@dataclass(frozen=True)
class ModelEntry:
    """What is known of one model. Immutable: readers hold a whole state, old or new.

    Attributes:
        versions: by their text.
        labels: versions by label.
        traffic: weights by label, for requests that name no version.
        newest: the newest version that answers, else the newest, whose reason is what a caller needs to hear; None
            where there are no versions. Requests ask for it, so it is found as versions change.
    """

    versions: Mapping[str, IndexEntry] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    traffic: Mapping[str, int] = field(default_factory=dict)
    newest: IndexEntry | None = None

    def with_versions(self, versions: Mapping[str, IndexEntry]) -> "ModelEntry":
        """The same model with other versions."""
        newest = max(versions.values(), key=lambda entry: (entry.served is not None, entry.version), default=None)
        return replace(self, versions=versions, newest=newest)

    def ascending(self) -> list[IndexEntry]:
        """Its versions by number."""
        return sorted(self.versions.values(), key=lambda entry: entry.version)

    def ready_traffic(self) -> dict[str, int]:
        """The weights of the labels whose version answers."""
        return {
            label: weight
            for label, weight in self.traffic.items()
            if weight and (entry := self.versions.get(str(self.labels[label]))) is not None and entry.served
        }  # guard: traffic-label-whose


class ModelRegistry:
    """Every model that is known. Thread-safe: `find` takes no lock, and sees whole states.

    Args:
        changed: called after every change, without a lock held.
        most_points_lost: percentage points of accuracy that a variant may lose.
    """

    def __init__(self, changed: Callable[[], None], *, most_points_lost: float = 0.0) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._models: Mapping[str, ModelEntry] = {}
        self._most_points_lost = most_points_lost
        self._variants: dict[object, tuple[ServedVersion, ...]] = {}  # by batcher of the version that has them
        self._turns = itertools.count()
        self._expected: frozenset[str] = frozenset()

    def expect(self, models: Iterable[str]) -> None:
        """Name the models that a start is about to load: until one is known, it is not ready, rather than unknown."""
        self._expected = frozenset(models)

    def put(self, entry: IndexEntry) -> IndexEntry | None:
        """Set what is known of a version.

        Returns:
            What was known of it before.
        """
        with self._lock:
            model = self._models.get(entry.model, ModelEntry())
            before = model.versions.get(entry.version_text)
            versions = {**model.versions, entry.version_text: entry}
            if entry.version:
                versions.pop("", None)  # it has a version now
            self._models = {**self._models, entry.model: model.with_versions(versions)}
            self._variants = {}  # guard: variants-follow
        self._changed()
        return before

    def forget(self, model: str, version: str) -> IndexEntry | None:
        """Drop a version that is no longer in the repository; with its last one a model goes.

        Returns:
            What was known of it.
        """
        with self._lock:
            entry = self._models.get(model, ModelEntry())
            versions = dict(entry.versions)
            dropped = versions.pop(version, None)
            models = {name: kept for name, kept in self._models.items() if name != model}
            self._models = {**models, model: entry.with_versions(versions)} if versions else models
            self._variants = {}
        self._changed()
        return dropped

    def set_labels(self, model: str, labels: Mapping[str, int], traffic: Mapping[str, int]) -> None:
        """Replace a model's labels and the traffic between them, all at once."""
        with self._lock:
            entry = replace(self._models.get(model, ModelEntry()), labels=dict(labels), traffic=dict(traffic))
            self._models = {**self._models, model: entry}
        self._changed()

    def model(self, name: str) -> ModelEntry | None:
        """What is known of a model; None for nothing."""
        return self._models.get(name)

    def names(self) -> list[str]:
        """Every model that is known."""
        return sorted(self._models)

    def index(self) -> list[IndexEntry]:
        """Every version, by model and number."""
        models = self._models
        return [entry for name in sorted(models) for entry in models[name].ascending()]

    def served(self) -> list[ServedVersion]:
        """Every version that answers."""
        return [entry.served for entry in self.index() if entry.served is not None]

    def variants(self, version: ServedVersion) -> tuple[ServedVersion, ...]:
        """The variants of a version that answer now (`variants.py`); found once for each change of what is served."""
        known = self._variants  # before the versions are looked at: what belongs to older ones is dropped with it
        variants = known.get(version.batcher)
        if variants is None:
            variants = variants_of(version, self.served(), most_points=self._most_points_lost)
            known[version.batcher] = variants
        return variants

    def is_ready(self, model: str) -> bool | None:
        """Whether some version of a model answers; None if the model is unknown."""
        entry = self._models.get(model)
        return None if entry is None else any(version.served for version in entry.versions.values())

    def ready_versions(self, model: str) -> list[str]:
        """The versions of a model that answer, ascending."""
        return [entry.version_text for entry in self._models.get(model, ModelEntry()).ascending() if entry.served]

    def find(self, model: str, version: str, *, request_id: str = "") -> ServedVersion:
        """The version that answers a request.

        Args:
            model: its name.
            version: a number or a label; empty for the traffic between labels, where there is some,
                else the newest that is ready.
            request_id: keeps a caller with one version, where traffic is split.

        Raises:
            InvalidRequestError: the version is neither a positive integer nor a label of the model.
            ModelNotFoundError: no such model or version.
            ModelNotReadyError: it is there but does not answer.
        """
        if version and not is_version_number(version) and not is_label(version):
            raise InvalidRequestError(
                f"version {version!r} of model {model!r} is neither a positive integer nor a label like 'stable'"
            )
        entry = self._models.get(model)
        if entry is None or entry.newest is None:
            if model in self._expected:
                raise ModelNotReadyError(model, version or "newest", state="LOADING", reason="")
            raise ModelNotFoundError(model)
        chosen = self._choose(entry, model, version, request_id) or entry.newest
        if chosen.served is None:
            raise ModelNotReadyError(model, chosen.version_text, state=chosen.state, reason=chosen.reason)
        return chosen.served

    def only_version(self, model: str, version: str) -> ServedVersion | None:
        """The version that answers every request for a model, or a version of it, now.

        Args:
            model: as for `find`.
            version: as for `find`.

        Returns:
            None where it depends on the request, or where none answers.
        """
        entry = self._models.get(model)
        if entry is None or (entry.traffic and not version):  # guard: coalesced-no-split
            return None
        try:
            return self.find(model, version)
        except ServingError:
            return None

    def with_version(self, model: str, version: str, use: Callable[[ServedVersion], T], *, origin: Origin) -> T:
        """Use the version that answers now; where it stopped answering in between, the one that does.

        A version leaves the registry before its queue closes, so a request that finds the queue closed need only
        look again: no swap fails a request. What `use` refuses is counted here, where a request meets its version.

        Args:
            model: as for `find`.
            version: as for `find`.
            use: what is done with it.
            origin: the request.

        Raises:
            ShuttingDownError: the version is still the one, so the server itself is going away.
            ServingError: from `find` and `use`.
        """
        while True:
            found = self.find(model, version, request_id=origin.request_id)
            try:
                return use(found)
            except ShuttingDownError as refusal:
                again = self.find(model, version, request_id=origin.request_id)
                if again is found:  # guard: versions-request-meets, versions-server-goes
                    found.observer.request_refused(refusal, origin)
                    raise
            except ServingError as refusal:
                found.observer.request_refused(refusal, origin)
                raise
            except Exception as error:
                found.observer.request_failed(error, origin)  # guard: outcome-unexpected
                raise

    def _choose(self, entry: ModelEntry, model: str, version: str, request_id: str) -> IndexEntry | None:
        """The version that is asked for, or that the traffic chooses; None for the newest."""
        if not version and entry.traffic and (weights := entry.ready_traffic()):
            turn = 0 if request_id else next(self._turns)
            version = str(entry.labels[choose_label(weights, request_id=request_id, turn=turn)])
        elif not version:
            return None
        elif is_label(version):
            if version not in entry.labels:
                known = ", ".join(sorted(entry.labels)) or "none"
                raise InvalidRequestError(
                    f"version {version!r} of model {model!r} is neither a positive integer "
                    f"nor one of its labels: {known}"
                )
            version = str(entry.labels[version])
        chosen = entry.versions.get(version)
        if chosen is None:
            raise ModelNotFoundError(model, version)
        return chosen
