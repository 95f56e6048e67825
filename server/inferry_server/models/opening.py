"""A version's model in ONNX Runtime: a session an instance, where and how its settings and its manifest say."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferry_proto.manifest_pb2 import ModelManifest
from inferry_proto.model_source import ModelSource
from inferry_server.errors import DeviceLostError, ModelLoadError
from inferry_server.models.config_pbtxt import CONFIG_FILE
from inferry_server.models.model_settings import ModelSettings
from inferry_server.models.repository import VersionFolder
from inferry_server.runtime.instances import Devices, LoadedSession, open_session
from inferry_server.runtime.load_watch import LoadWatch
from inferry_server.runtime.memory import available_bytes
from inferry_server.runtime.providers import choose_providers, preload_libraries


@dataclass(frozen=True)
class SessionOpener:
    """Loads a model into sessions, all alike.

    Attributes:
        source: the model.
        providers: execution providers in order of preference.
        devices: how GPUs compute this model.
        threads: of a session.
        watch: told how to end the loads.
    """

    source: ModelSource
    providers: Sequence[str]
    devices: Devices
    threads: int
    watch: LoadWatch

    def open_all(self, device_ids: Sequence[int]) -> list[LoadedSession]:
        """One session for each entry.

        Raises:
            ModelLoadError: ONNX Runtime or the device refuses, or memory is short.
            RecordingError: the model does not allow CUDA graphs.
        """
        needed, available = self.source.size_bytes * len(device_ids), available_bytes()
        if needed > available:  # guard: sizes-instances
            raise ModelLoadError(
                f"{self.source.path}: {len(device_ids)} instances of a model of {self.source.size_bytes} bytes need "
                f"{needed}; {available} are available"
            )
        sessions: list[LoadedSession] = []
        try:
            for device_id in device_ids:
                sessions.append(self._open(self.devices, device_id))  # noqa: PERF401 - closed if the next one fails
        except BaseException as error:
            for session in sessions:
                session.close()
            if not isinstance(error, DeviceLostError):
                raise
            raise ModelLoadError(f"{self.source.path}: {error}") from error
        return sessions

    def open_plain(self, device_id: int) -> LoadedSession:
        """One more session, which records nothing. Raises as `open_all` does."""
        return self._open(without_graphs(self.devices), device_id)

    def _open(self, devices: Devices, device_id: int) -> LoadedSession:
        return open_session(
            self.source,
            self.providers,
            devices,
            device_id=device_id,
            intra_op_num_threads=self.threads,
            watch=self.watch,
        )


def session_opener(
    folder: VersionFolder,
    settings: ModelSettings,
    manifest: ModelManifest | None,
    source: ModelSource,
    *,
    providers: Sequence[str],
    devices: Devices,
    threads: int,
    watch: LoadWatch,
) -> SessionOpener:
    """What loads a version.

    Args:
        folder: of the version.
        settings: the model's own.
        manifest: of the version; None where there is none.
        source: the model.
        providers: the server's.
        devices: the server's.
        threads: of a session.
        watch: told how to end the loads.

    Raises:
        ModelLoadError: the model's own provider cannot be had.
    """
    try:
        chosen = settings.providers(providers, choose=functools.partial(_choose, tf32=devices.options.tf32))
    except ValueError as error:
        raise ModelLoadError(f"{folder.path.parent / CONFIG_FILE}: {error}") from error
    cuda = devices.options.for_precision(manifest.precision if manifest is not None else "")
    return SessionOpener(source, chosen, replace(devices, options=cuda), threads, watch)


def without_graphs(devices: Devices) -> Devices:
    """The same, where no CUDA graphs are recorded."""
    return replace(devices, options=devices.options.without_graphs())


@functools.cache
def _choose(choice: str, *, tf32: bool) -> Sequence[str]:
    """The providers for a model's own choice, their libraries loaded."""
    providers = choose_providers(choice)
    preload_libraries(providers, tf32=tf32)
    return providers
