"""What computes batches on a device: a protocol, for which tests have a fake, and its two implementations."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.runtime.capture_gate import CaptureGate
from inferry_server.runtime.device_memory import Bytes, DeviceMemory
from inferry_server.runtime.session import OnnxSession
from inferry_server.signature import Signature, TensorSpec

_ONNX_BFLOAT16 = 16


class Device(Protocol):
    """Computes batches of one model. For one thread at a time; raises errors of CUDA and of ONNX Runtime."""

    def activate(self) -> None:
        """Let the calling thread be the one that computes from now on."""

    def staging(self, rows: int) -> Arrays | None:
        """The host's memory from which `run` copies inputs of so many rows to the device; None: from anywhere."""

    def run(self, inputs: Arrays) -> Arrays:
        """Compute one batch, whose inputs may be what `staging` returned; outputs are arrays of their own."""

    def run_whole(self, inputs: Arrays) -> Arrays:
        """Compute inputs of any size; the sizes of outputs need not follow from the rows."""

    def record(self, inputs: Arrays) -> Arrays | None:
        """Record a CUDA graph of this batch size on the calling thread, and replay it; None where there is none."""

    def give_back_memory(self) -> None:
        """Give back, with the next batch, memory that ONNX Runtime keeps for batches that will not come again."""

    def close(self) -> None:
        """Give back the model and its memory; nothing is computed any more."""


class PlainDevice:
    """Lets ONNX Runtime allocate and copy: for tensors whose size is not known before they are there."""

    def __init__(self, session: OnnxSession, memory: DeviceMemory, gate: CaptureGate) -> None:
        self._session = session
        self._memory = memory
        self._gate = gate

    def activate(self) -> None:
        """Let the calling thread be the one that computes from now on."""
        self._memory.activate()

    def staging(self, rows: int) -> None:
        """None: ONNX Runtime copies from anywhere."""

    def run(self, inputs: Arrays) -> Arrays:
        """Compute one batch."""
        with self._gate.computing():
            return self._session.run(inputs)

    run_whole = run

    def record(self, inputs: Arrays) -> None:
        """None: tensors lie elsewhere in each batch, and a CUDA graph keeps addresses."""

    def give_back_memory(self) -> None:
        """Nothing: ONNX Runtime decides what it keeps."""

    def close(self) -> None:
        """Give back the session, then its stream."""
        with self._gate.computing():
            self._session.close()
            self._memory.close()


@dataclass(frozen=True)
class _Buffer:
    """One input or output: the same memory for every batch size, of which the first rows are used."""

    spec: TensorSpec
    address: int
    host: Bytes

    @property
    def row_bytes(self) -> int:
        return prod(self.spec.shape[1:]) * self.spec.datatype.dtype.itemsize

    def rows(self, rows: int) -> Bytes:
        return self.host[: rows * self.row_bytes]

    def array(self, rows: int) -> NDArray[Any]:
        return self.rows(rows).view(self.spec.datatype.dtype).reshape(rows, *self.spec.shape[1:])


@dataclass(frozen=True)
class _Step:
    """One batch size, bound to its buffers.

    Attributes:
        staging: the host's side of the inputs, by name.
    """

    staging: Arrays
    binding: Any
    plain: Any
    recorded: Any


class BoundDevice:
    """Computes in buffers of its own: it stages inputs on the host, copies, computes, copies back, and waits once.

    A batch uses one stream. Nothing is allocated for it, and addresses never change, which is what CUDA graphs need.
    Two instances have two streams: one copies while the other computes.

    Args:
        session: loaded with the stream of `memory`.
        memory: of this instance alone.
        signature: every axis but the first has a fixed length.
        steps: the batch sizes that it will see; the last is the largest.
        gate: keeps recording apart from everything else.
        cuda_graphs: whether the session was loaded to record.

    Raises:
        CudaCallError: no memory for the buffers.
    """

    def __init__(
        self,
        session: OnnxSession,
        memory: DeviceMemory,
        signature: Signature,
        *,
        steps: Sequence[int],
        gate: CaptureGate,
        cuda_graphs: bool,
    ) -> None:
        self._session = session
        self._memory = memory
        self._gate = gate
        self._cuda_graphs = cuda_graphs
        self._inputs = [self._buffer(spec, steps[-1]) for spec in signature.inputs]
        self._outputs = [self._buffer(spec, steps[-1]) for spec in signature.outputs]
        self._steps = {rows: self._bind(rows) for rows in steps}
        self._recorded: set[int] = set()
        self._give_back = False

    def activate(self) -> None:
        """Let the calling thread be the one that computes from now on. It cannot replay what another has recorded."""
        self._memory.activate()
        self._recorded.clear()

    def staging(self, rows: int) -> Arrays | None:
        """The host's side of the inputs, by name; None where `rows` is none of the batch sizes."""
        step = self._steps.get(rows)
        return None if step is None else step.staging

    def run(self, inputs: Arrays) -> Arrays:
        """Compute one batch of one of the sizes."""
        rows = len(next(iter(inputs.values())))
        with self._gate.computing():
            return self._run(inputs, rows, recorded=rows in self._recorded)

    def run_whole(self, inputs: Arrays) -> Arrays:
        """Compute inputs of any size. ONNX Runtime allocates and copies; it refuses where the session records."""
        with self._gate.computing():
            return self._session.run(inputs)

    def record(self, inputs: Arrays) -> Arrays | None:
        """Record this batch size, and compute it by replaying the recording."""
        if not self._cuda_graphs:
            return None
        rows = len(next(iter(inputs.values())))
        with self._gate.recording():
            self._run(inputs, rows, recorded=True)
            outputs = self._run(inputs, rows, recorded=True)
        self._recorded.add(rows)
        return outputs

    def give_back_memory(self) -> None:
        """Shrink ONNX Runtime's arena with the next batch; not where recordings point into it."""
        self._give_back = not self._cuda_graphs

    def close(self) -> None:
        """Give back the session, then the buffers and the stream that it used."""
        self._steps.clear()
        with self._gate.computing():
            self._session.close()
            self._memory.close()

    def _run(self, inputs: Arrays, rows: int, *, recorded: bool) -> Arrays:
        step = self._steps[rows]
        options = step.recorded if recorded else self._plain_options(step)
        try:
            for buffer in self._inputs:
                if inputs is not step.staging:
                    np.copyto(step.staging[buffer.spec.name], inputs[buffer.spec.name])
                self._memory.copy_in(buffer.address, buffer.rows(rows))
            self._session.run_bound(step.binding, options)
            for buffer in self._outputs:
                self._memory.copy_out(buffer.rows(rows), buffer.address)
        finally:
            self._memory.synchronize()  # after a failure too: nothing may write to the buffers later
        return {buffer.spec.name: buffer.array(rows).copy() for buffer in self._outputs}

    def _plain_options(self, step: _Step) -> Any:
        if not self._give_back:
            return step.plain
        self._give_back = False
        options = _run_options(graph_id=None)
        device = "gpu" if self._memory.device_type == "cuda" else "cpu"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"{device}:{self._memory.device_id}")
        return options

    def _buffer(self, spec: TensorSpec, rows: int) -> _Buffer:
        size = rows * prod(spec.shape[1:]) * spec.datatype.dtype.itemsize
        return _Buffer(spec, self._memory.allocate(size), self._memory.allocate_host(size))

    def _bind(self, rows: int) -> _Step:
        binding = self._session.io_binding()
        for bind, buffers in ((binding.bind_input, self._inputs), (binding.bind_output, self._outputs)):
            for buffer in buffers:
                datatype = buffer.spec.datatype
                element_type = _ONNX_BFLOAT16 if datatype.name == "BF16" else datatype.dtype
                shape = [rows, *buffer.spec.shape[1:]]
                bind(
                    buffer.spec.name, self._memory.device_type, self._memory.device_id,
                    element_type, shape, buffer.address,
                )  # fmt: skip
        skip = -1 if self._cuda_graphs else None
        staging = {buffer.spec.name: buffer.array(rows) for buffer in self._inputs}
        return _Step(staging, binding, _run_options(graph_id=skip), _run_options(graph_id=rows))


def can_be_bound(signature: Signature) -> bool:
    """Whether the size of every tensor follows from the rows."""
    return all(
        spec.shape[:1] == (-1,)
        and -1 not in spec.shape[1:]
        and 0 not in spec.shape[1:]
        and not spec.datatype.dtype.hasobject
        for spec in signature.inputs + signature.outputs
    )


def _run_options(*, graph_id: int | None) -> Any:
    """How one batch is run; with `graph_id` -1 a session that records others does not record it.

    ONNX Runtime need not wait for the stream: the copy back follows on the same stream, and the caller waits for that.
    """
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    if graph_id is not None:
        options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options
