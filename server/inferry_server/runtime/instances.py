"""Sessions on the devices of this server, made into instances that a batcher can use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_proto.model_source import ModelSource
from inferry_server.errors import ModelLoadError, RecordingError
from inferry_server.runtime.capture_gate import CaptureGate
from inferry_server.runtime.cuda_options import CudaOptions, provider_options
from inferry_server.runtime.device import BoundDevice, Device, PlainDevice, can_be_bound
from inferry_server.runtime.device_errors import CudaCallError
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.device_memory import CudaMemory, DeviceMemory
from inferry_server.runtime.instance import CpuInstance, DeviceInstance, Instance
from inferry_server.runtime.load_watch import LoadWatch
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import OnnxSession, load_session
from inferry_server.signature import Signature, TensorSpec


@dataclass(frozen=True)
class Devices:
    """What all models share of the devices.

    Attributes:
        options: how GPUs compute.
        health: told when a device is lost.
        gate: keeps recording apart from computing.
        open_memory: opens a stream, with buffers, on the device of that number.
    """

    options: CudaOptions = field(default_factory=CudaOptions)
    health: DeviceHealth = field(default_factory=DeviceHealth)
    gate: CaptureGate = field(default_factory=CaptureGate)
    open_memory: Callable[[int], DeviceMemory] = CudaMemory


@dataclass(frozen=True)
class LoadedSession:
    """A session, and its stream where it is on a device."""

    session: OnnxSession
    memory: DeviceMemory | None

    def close(self) -> None:
        """Give back everything, the session first: it uses the stream."""
        self.session.close()
        if self.memory is not None:
            self.memory.close()


def open_session(
    source: Path | ModelSource,
    providers: Sequence[str],
    devices: Devices,
    *,
    device_id: int,
    intra_op_num_threads: int,
    watch: LoadWatch | None = None,
) -> LoadedSession:
    """Load a model onto the device on which it computes.

    Raises:
        ModelLoadError: ONNX Runtime or the device refuses.
    """
    if tuple(providers) == (CPU,):
        session = load_session(source, providers=providers, intra_op_num_threads=intra_op_num_threads, watch=watch)
        return LoadedSession(session, None)
    devices.health.check()
    try:
        memory = devices.open_memory(device_id)
    except (CudaCallError, OSError) as error:
        path = source if isinstance(source, Path) else source.path
        raise ModelLoadError(f"{path}: GPU {device_id} cannot be used: {error}") from error
    options = provider_options(providers, devices.options, device_id=device_id, stream=memory.stream)
    try:
        with devices.gate.computing():
            session = load_session(source, providers=options, intra_op_num_threads=intra_op_num_threads, watch=watch)
    except BaseException:
        memory.close()
        raise
    return LoadedSession(session, memory)


def make_instance(
    loaded: LoadedSession, devices: Devices, signature: Signature, steps: Sequence[int], *, bound: bool = True
) -> Instance:
    """An instance of a loaded session.

    Args:
        loaded: of this instance alone.
        devices: with which it was loaded.
        signature: with the lengths that are fixed.
        steps: batch sizes in ascending order; empty for a model without rows.
        bound: allocate inputs and outputs once for all batches, where their sizes allow it.

    Raises:
        ModelLoadError: the device has no memory for its buffers.
        RecordingError: the session was loaded to record, and the model's tensors do not stay in one place.
    """
    session, memory = loaded.session, loaded.memory
    if memory is None:
        return CpuInstance(session)
    if not bound or not steps or not can_be_bound(signature):
        if devices.options.cuda_graphs:
            raise RecordingError(f"the sizes of its tensors do not follow from the rows: {signature}")
        return DeviceInstance(PlainDevice(session, memory, devices.gate), steps, devices.health, pads=False)
    try:
        device: Device = BoundDevice(
            session, memory, signature, steps=steps, gate=devices.gate, cuda_graphs=devices.options.cuda_graphs
        )
    except CudaCallError as error:
        raise ModelLoadError(
            f"GPU {memory.device_id} has no memory for the buffers of {steps[-1]} rows: {error}"
        ) from error
    return DeviceInstance(device, steps, devices.health, make_inputs=_InputMaker(signature))


class _InputMaker:
    """Makes up inputs that a model can be recorded with: random pixels and fractions, else zeros."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._random = np.random.default_rng(0)

    def __call__(self, rows: int) -> Arrays:
        return {spec.name: self._array(spec, (rows, *spec.shape[1:])) for spec in self._signature.inputs}

    def _array(self, spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
        dtype = spec.datatype.dtype
        if dtype == np.uint8:
            return self._random.integers(0, 256, shape, np.uint8)
        if dtype.kind == "f":
            return self._random.random(shape).astype(dtype)
        return np.zeros(shape, dtype)  # other numbers may be positions, and must not point outside
