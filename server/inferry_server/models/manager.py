"""Keeps what is served in step with what lies in the repository."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from inferry_proto.version_labels import read_labels_and_traffic
from inferry_server.errors import ModelLoadError, ModelNotFoundError, ShuttingDownError, StartError
from inferry_server.models.config_pbtxt import ConfigError, read_model_settings
from inferry_server.models.fingerprint import Fingerprint, fingerprint
from inferry_server.models.limited_load import GRACE_S, load_within
from inferry_server.models.load_queue import Done, Job, LoadQueue
from inferry_server.models.loading import LoadOptions, load_version, unexpected
from inferry_server.models.passing_faults import may_pass
from inferry_server.models.quickest import time_in_turns
from inferry_server.models.registry import IndexEntry, ModelEntry, ModelRegistry, State
from inferry_server.models.repository import ModelFolder, VersionFolder, find_model, readable, scan_repository
from inferry_server.models.version import ServedVersion
from inferry_server.models.version_labels import LabelsReader
from inferry_server.models.version_policy import NEWEST, versions_to_serve
from inferry_server.runtime.load_watch import LoadWatch
from inferry_server.runtime.memory import trim_heap

logger = logging.getLogger(__name__)

_STOPPING = "the server is stopping"
_LOOK_S = 0.1  # how often a start asks whether it is to stop
_LONGEST_END_S = GRACE_S + 1.0  # of loads that are told to end
_POLL_PATIENCE_S = 5.0  # then the next look, which sees other models
_NO_VERSION = 0  # the entry of a model that has none, or whose folder could not be followed
_NOT_CHOSEN = "not served: not among the versions the model's policy names (by default the newest), and without a label"


class ModelManager:
    """Loads and unloads versions, away from the threads that serve.

    Whatever replaces a version is loaded, warmed and checked first; only then do requests go to it,
    and the one before finishes what it has accepted. What fails to load changes nothing else. Changes of one model
    happen one after the other; a load that does not end is given up after `model_load_timeout_s`, and holds up
    neither the loads of other models nor the end of the server.

    Args:
        root: the repository.
        registry: told what is served.
        options: how versions are loaded.
        drain_timeout_s: how long a version that is no longer served may take to finish.
        model_load_timeout_s: how long a version may take to load.
        loads: runs what changes a model.
    """

    def __init__(
        self,
        root: Path,
        registry: ModelRegistry,
        options: LoadOptions,
        *,
        drain_timeout_s: float,
        model_load_timeout_s: float = 120.0,
        loads: LoadQueue | None = None,
    ) -> None:
        self._root = root
        self._registry = registry
        self._options = options
        self._drain_timeout_s = drain_timeout_s
        self._load_timeout_s = model_load_timeout_s
        self._loads = loads or LoadQueue()
        self._labels = LabelsReader(options.model_key)
        self._lock = threading.Lock()  # of what follows, and of steps that look at the registry and change it
        self._loaded: dict[tuple[str, int], Fingerprint] = {}  # from which state of its files
        self._unloaded: set[str] = set()  # models that were unloaded on request, and stay so
        self._watches: set[LoadWatch] = set()  # of the versions that are loaded just now
        self._closing = False
        self._stop_polling = threading.Event()
        self._poller: threading.Thread | None = None

    def load_all(self, folders: Iterable[ModelFolder], stop_requested: Callable[[], bool]) -> None:
        """Load what the repository holds, until all is loaded or given up, or a stop is requested.

        What fails is in the registry with its reason, and not logged: whoever starts the server knows
        whether it ends the start, and says it once.
        """
        jobs = []
        for folder in folders:
            if stop_requested():
                return
            jobs.append(self._follow_soon(folder, quiet=True))
        for job in jobs:
            while not job.ended.wait(_LOOK_S):
                if stop_requested():
                    return

    def load_model(self, name: str, done: Done) -> Callable[[], None]:
        """Load a model as it now lies in the repository; `done` hears how it went, on another thread.

        Returns:
            To be called when nobody wants the load any more.

        Raises:
            QueueFullError: too many loads wait.
            ShuttingDownError: `close` was called.
        """
        job = self._loads.submit(name, lambda: self._load_model(name), done)
        return lambda: self._loads.drop(job)

    def unload_model(self, name: str, done: Done) -> Callable[[], None]:
        """Stop serving a model; `done` hears when requests no longer reach it. Else as `load_model`."""
        job = self._loads.submit(name, lambda: self._unload_model(name), done)
        return lambda: self._loads.drop(job)

    def withdraw(self, version: ServedVersion, reason: str) -> None:
        """Stop serving a version that no longer answers as it should; loading the model again may bring it back."""
        with self._lock:
            model = self._registry.model(version.model) or ModelEntry()
            entry = model.versions.get(version.version)
            if entry is None or entry.served is not version:
                return  # replaced in the meantime
            self._retire(
                self._registry.put(replace(entry, state=State.UNAVAILABLE, reason=reason, served=None, failed=True))
            )

    def start_polling(self, interval_s: float) -> None:
        """Look at the repository again and again, on a thread of its own. The start was the first look."""
        self._options.metrics.last_poll.labels("done").set_to_current_time()
        self._poller = threading.Thread(target=self._poll, args=(interval_s,), name="repository-poll", daemon=True)
        self._poller.start()

    def poll_once(self, patience_s: float | None = None) -> None:
        """Bring what is served in step with the repository, once.

        Args:
            patience_s: how long to wait for what is loaded; None: until it is loaded or given up.
        """
        try:
            folders = scan_repository(self._root, may_be_empty=True)
        except StartError as error:
            logger.error("the repository cannot be read; what is served stays: %s", error)
            self._options.metrics.last_poll.labels("failed").set_to_current_time()
            return
        jobs: list[Job] = []
        for folder in folders:
            if folder.name in self._unloaded or self._loads.is_busy(folder.name):
                continue
            if self._has_new(folder):
                jobs.append(self._follow_soon(folder))
            else:
                self._reconcile(folder)
        for name in set(self._registry.names()) - {folder.name for folder in folders}:
            self._drop_versions(name, keep=())
            self._options.metrics.forget_loads(name)
            self._labels.forget(name)
        ends = None if patience_s is None else time.monotonic() + patience_s
        for job in jobs:
            job.ended.wait(None if ends is None else max(0.0, ends - time.monotonic()))
        self._options.metrics.last_poll.labels("done").set_to_current_time()

    def close(self) -> None:
        """Change nothing any more, and end what is being loaded. Served versions go on until they are closed.

        Waits a few seconds at most, for loads that do not end when they are told to.
        """
        self._stop_polling.set()
        with self._lock:
            self._closing = True
            watches = tuple(self._watches)
        running = self._loads.close()
        for watch in watches:
            watch.cancel(_STOPPING)
        ends = time.monotonic() + _LONGEST_END_S
        for job in running:
            job.ended.wait(max(0.0, ends - time.monotonic()))
        if self._poller is not None:
            self._poller.join(max(0.0, ends - time.monotonic()))

    def _poll(self, interval_s: float) -> None:
        while not self._stop_polling.wait(interval_s):
            try:
                self.poll_once(_POLL_PATIENCE_S)
            except ShuttingDownError:
                return
            except Exception:  # the next look may fare better, and serving goes on
                logger.exception("polling the repository failed")
                self._options.metrics.last_poll.labels("failed").set_to_current_time()

    def _follow_soon(self, folder: ModelFolder, *, quiet: bool = False) -> Job:
        def run() -> None:
            self._reconcile(folder, quiet=quiet)

        return self._loads.submit(folder.name, run, lambda _: None, bounded=False)

    def _has_new(self, folder: ModelFolder) -> bool:
        """Whether following this folder would load something, or cannot be told."""
        try:
            labels = read_labels_and_traffic(folder.path).labels
            wanted = _wanted_versions(folder, labels.values())
            return any(version.version in wanted and self._is_new(version) for version in folder.versions)
        except Exception:  # noqa: BLE001 - whoever follows it says why
            return False

    def _load_model(self, name: str) -> None:
        folder = find_model(self._root, name)
        if folder is None:
            raise ModelNotFoundError(name)
        with self._lock:
            self._unloaded.discard(name)
        failures = self._reconcile(folder, reload=True)
        if failures:
            raise ModelLoadError("; ".join(failures))

    def _unload_model(self, name: str) -> None:
        with self._lock:
            model = self._registry.model(name)
            if model is None:  # nothing to do, and nothing to remember  # guard: boundary-unknown-unload
                return
            self._unloaded.add(name)
            for entry in model.ascending():
                gone = IndexEntry(name, entry.version, State.UNAVAILABLE, "unloaded on request")
                self._retire(self._registry.put(gone))
                self._loaded.pop((name, entry.version), None)

    def _reconcile(self, folder: ModelFolder, *, reload: bool = False, quiet: bool = False) -> list[str]:
        """Serve what the folder says; whatever goes wrong with it is this model's alone.

        Returns:
            Why what could not be loaded could not.
        """
        try:
            return self._follow(folder, reload=reload, quiet=quiet)
        except Exception as error:
            reason = f"{readable(folder.path)}: {unexpected(error)}"
            known = (self._registry.model(folder.name) or ModelEntry()).versions.get("")
            if known is None or known.reason != reason:  # else it was said already
                logger.exception("a model's folder could not be followed", extra={"model": folder.name})
            return [self._fail(folder.name, _NO_VERSION, reason, quiet=quiet)]  # guard: boundary-model

    def _follow(self, folder: ModelFolder, *, reload: bool, quiet: bool) -> list[str]:
        failures, loaded = [], False
        if not folder.versions:
            failures.append(self._fail(folder.name, _NO_VERSION, folder.problem, quiet=quiet))
        labels, traffic = self._read_labels(folder, failures)
        wanted = _wanted_versions(folder, labels.values())
        for version in folder.versions:
            if version.version in wanted and (reload or self._is_new(version)):
                failures += self._load(version, quiet=quiet)
                loaded = True
        self._registry.set_labels(folder.name, labels, traffic)
        failed = bool(failures) or not self._are_served(folder.name, wanted)  # guard: versions-failed-before
        self._retire_others(folder, wanted, failed=failed)
        self._drop_versions(folder.name, keep=[version.version for version in folder.versions] or [_NO_VERSION])
        if loaded:
            time_in_turns(self._registry.model(folder.name) or ModelEntry())
        return failures

    def _load(self, folder: VersionFolder, *, quiet: bool) -> list[str]:
        before = (self._registry.model(folder.model) or ModelEntry()).versions.get(str(folder.version))
        if before is None or before.served is None:  # guard: versions-old-serves
            self._registry.put(IndexEntry(folder.model, folder.version, State.LOADING))
        self._loaded[folder.model, folder.version] = fingerprint(folder)  # what is wrong is not tried again either
        try:
            served = self._load_version(folder)
        except ModelLoadError as error:
            if self._closing:  # that says nothing of the version
                return [str(error)]
            if may_pass(error):  # guard: versions-passing-fault
                self._loaded.pop((folder.model, folder.version), None)  # the next look tries again
            if before is not None and before.served is not None:  # guard: versions-bad-exchange
                logger.error("model not replaced: %s", error, extra={"model": str(folder)})
                self._options.metrics.load_ended(folder.model, "failed")
                return [str(error)]
            return [self._fail(folder.model, folder.version, str(error), quiet=quiet)]
        self._options.metrics.load_ended(folder.model, "ready")
        self._retire(self._registry.put(IndexEntry(folder.model, folder.version, State.READY, served=served)))
        return []

    def _load_version(self, folder: VersionFolder) -> ServedVersion:
        watch = LoadWatch()
        with self._lock:
            if self._closing:
                raise ModelLoadError(_STOPPING)
            self._watches.add(watch)
        try:
            return load_within(
                lambda watch: load_version(folder, replace(self._options, watch=watch)),
                watch,
                timeout_s=self._load_timeout_s,
                name=str(folder),
            )
        finally:
            with self._lock:
                self._watches.discard(watch)

    def _fail(self, model: str, version: int, reason: str, *, quiet: bool) -> str:
        entry = IndexEntry(model, version, State.UNAVAILABLE, reason, failed=True)
        known = self._registry.model(model)
        if known is None or known.versions.get(entry.version_text) != entry:  # else it was said already
            if not quiet:
                log_failure(entry)
            self._options.metrics.load_ended(model, "failed")
            self._registry.put(entry)
        return reason

    def _read_labels(self, folder: ModelFolder, failures: list[str]) -> tuple[dict[str, int], dict[str, int]]:
        """The labels on disk, or those in force where the file cannot be read."""
        try:
            message = self._labels.read(folder)
            return dict(message.labels), dict(message.traffic)
        except ModelLoadError as error:
            failures.append(str(error))
            model = self._registry.model(folder.name) or ModelEntry()
            return dict(model.labels), dict(model.traffic)

    def _is_new(self, folder: VersionFolder) -> bool:
        return self._loaded.get((folder.model, folder.version)) != fingerprint(folder)

    def _are_served(self, name: str, wanted: set[int]) -> bool:
        """Whether all of these versions answer: one that failed before still does not, and nothing is said again."""
        versions = (self._registry.model(name) or ModelEntry()).versions
        return all((entry := versions.get(str(one))) is not None and entry.served for one in wanted)

    def _retire_others(self, folder: ModelFolder, wanted: set[int], *, failed: bool) -> None:
        """Stop serving what is not wanted any more; where something failed, what answers goes on."""
        known = (self._registry.model(folder.name) or ModelEntry()).versions
        for version in folder.versions:
            before = known.get(str(version.version))
            if version.version in wanted or (
                failed and before is not None and before.served is not None
            ):  # guard: versions-failed-leaves
                continue
            self._loaded.pop((version.model, version.version), None)
            entry = IndexEntry(version.model, version.version, State.UNAVAILABLE, _NOT_CHOSEN)
            if before != entry:
                self._retire(self._registry.put(entry))

    def _drop_versions(self, model: str, keep: Iterable[int]) -> None:
        """Forget the versions that are no longer in the repository."""
        kept = set(keep)
        for entry in (self._registry.model(model) or ModelEntry()).ascending():
            if entry.version not in kept:
                self._loaded.pop((model, entry.version), None)
                self._retire(self._registry.forget(model, entry.version_text))

    def _retire(self, before: IndexEntry | None) -> None:
        """Let a version that requests no longer reach finish what it has, without waiting for it."""
        if before is not None and before.served is not None:
            threading.Thread(target=self._end, args=([before.served],), name="drain", daemon=True).start()

    def _end(self, retired: list[ServedVersion]) -> None:
        """Drain a version and give back its memory; the list is emptied, so that nothing keeps it."""
        self._drain(retired.pop())
        trim_heap()

    def _drain(self, version: ServedVersion) -> None:
        finished = version.close(self._drain_timeout_s)
        self._options.metrics.forget(version.model, version.version)
        logger.info(
            "model unloaded", extra={"model": f"{version.model}/{version.version}", "everything_answered": finished}
        )


def log_failure(entry: IndexEntry) -> None:
    """Say why a version is not served."""
    logger.error("model not loaded: %s", entry.reason, extra={"model": entry.model})


def _wanted_versions(folder: ModelFolder, labelled: Iterable[int]) -> set[int]:
    """The versions that the model's policy names, and every one that has a label."""
    try:
        policy = read_model_settings(folder.path).version_policy
    except ConfigError:
        policy = NEWEST  # loading it will fail, and say why
    there = [version.version for version in folder.versions]
    return {*versions_to_serve(policy, there), *(version for version in labelled if version in there)}
