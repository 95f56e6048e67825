"""One instance of a model: which batch sizes it runs, and how it treats errors. Does not call ONNX Runtime itself."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_proto.foreign_errors import first_line
from inferry_server.errors import DeviceLostError, DeviceOutOfMemoryError, InferenceError, RecordingError
from inferry_server.runtime.device import Device
from inferry_server.runtime.device_errors import Fault, classify
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.session import OnnxSession
from inferry_server.signature import Staging

logger = logging.getLogger(__name__)

_REPLAY_TOLERANCE = 1e-2  # relative; a replay runs the same kernels, what goes wrong there is not rounding


class Instance(Protocol):
    """Computes batches of one model, on a thread of its own."""

    @property
    def staging(self) -> Staging | None:
        """Where the thread that runs a batch, and until then no other, puts its inputs together; None: anywhere."""

    def run(self, inputs: Arrays) -> Arrays:
        """Compute a batch; outputs are arrays of their own."""

    def run_whole(self, inputs: Arrays) -> Arrays:
        """Compute inputs whose first axes count no rows after all: neither cut nor padded."""

    def prepare(self) -> None:
        """Called once by the thread that will run batches, before it does."""

    @property
    def batch_limit(self) -> int | None:
        """The most rows that the device runs at once; None where it has no such limit."""

    def interrupter(self) -> Callable[[], None]:
        """A function that ends the run that is under way now, as soon as its device allows; later runs go on."""

    def close(self) -> None:
        """Give back memory; nothing is computed any more."""


class CpuInstance:
    """A session on the CPU: nothing to prepare, pad or copy."""

    batch_limit = staging = None

    def __init__(self, session: OnnxSession) -> None:
        self.run = self.run_whole = session.run
        self.interrupter = session.interrupter

    def prepare(self) -> None:
        """Nothing: any thread may run batches."""

    def close(self) -> None:
        """Nothing: the session's memory is freed with the last reference to it."""


class DeviceInstance:
    """A model on a device. Batches are cut to the largest size it was prepared for; one runs at a time.

    When the device has no memory for a batch, that batch fails, the limit falls to the next smaller
    step, and larger batches are cut from then on. An error that the device does not recover from is
    reported, and nothing touches the device any more.

    Args:
        device: computes; of this instance alone.
        steps: batch sizes in ascending order; empty for a model without rows, whose batches run as they are.
        health: told of what the device does not recover from.
        make_inputs: makes inputs of so many rows, for recording; different ones at every call.
        pads: whether batches are padded to the sizes it was prepared for. Not where outputs may have other numbers of
            rows than inputs: outputs of padding could be taken for a request's.
    """

    def __init__(
        self,
        device: Device,
        steps: Sequence[int],
        health: DeviceHealth,
        *,
        make_inputs: Callable[[int], Arrays] | None = None,
        pads: bool = True,
    ) -> None:
        self._device = device
        self._steps = tuple(steps)
        self._health = health
        self._make_inputs = make_inputs
        self._pads = pads
        self._limit = steps[-1] if steps else 1
        self._running = threading.Lock()
        self.staging = device.staging

    @property
    def batch_limit(self) -> int:
        """The most rows that the device runs at once."""
        return self._limit

    def prepare(self) -> None:
        """Record every batch size on the calling thread, where the device records at all.

        Raises:
            RecordingError: recording failed, or the outputs of a replay differ from the model's.
            DeviceLostError: the device is lost.
        """
        with self._running:
            try:
                self._device.activate()
                self._record()
            except RecordingError:
                raise
            except Exception as error:
                if classify(error) is Fault.LOST:
                    self._lose(error)
                raise RecordingError(f"recording a CUDA graph failed: {error}") from error

    def run(self, inputs: Arrays) -> Arrays:
        """Compute a batch of any number of rows, in as many runs as it takes.

        Raises:
            DeviceOutOfMemoryError: a run did not fit; the next batch is cut smaller.
            DeviceLostError: the device is lost.
            InferenceError: the model failed on these inputs.
        """
        with self._running:
            self._health.check()
            if not self._steps:
                return self._run(inputs, 1)
            rows = len(next(iter(inputs.values())))
            if rows <= self._limit:
                return self._run_padded(inputs, rows)
            parts = [
                self._run_padded(
                    {name: array[start : start + self._limit] for name, array in inputs.items()},
                    min(self._limit, rows - start),
                )
                for start in range(0, rows, self._limit)
            ]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def run_whole(self, inputs: Arrays) -> Arrays:
        """Compute inputs as they are, in one run. Raises as `run` does."""
        with self._running:
            self._health.check()
            return self._run(inputs, 1, whole=True)

    def interrupter(self) -> Callable[[], None]:
        """A function that does nothing: a GPU finishes what it has begun."""
        return _do_nothing

    def close(self) -> None:
        """Give back the device's memory."""
        with self._running:
            if self._health.lost_reason is None:  # else every call fails, and the process ends anyway
                self._device.close()

    def _run_padded(self, inputs: Arrays, rows: int) -> Arrays:
        step = next(step for step in self._steps if step >= rows)
        if step == rows or not self._pads:  # guard: device-pads-rows-only
            return self._run(inputs, rows)
        outputs = self._run({name: _pad(array, step) for name, array in inputs.items()}, step)
        return {name: array[:rows] if len(array) == step else array for name, array in outputs.items()}

    def _run(self, inputs: Arrays, rows: int, *, whole: bool = False) -> Arrays:
        try:
            return self._device.run_whole(inputs) if whole else self._device.run(inputs)
        except Exception as error:
            match classify(error):
                case Fault.LOST:
                    self._lose(error)
                case Fault.OUT_OF_MEMORY:
                    self._shrink(rows, error)
                case Fault.MODEL:
                    self._health.count(Fault.MODEL.value)
            if isinstance(error, InferenceError):
                raise
            raise InferenceError(f"the model failed: {first_line(error)}") from error

    def _lose(self, error: Exception) -> NoReturn:
        reason = str(error)
        self._health.count(Fault.LOST.value)
        self._health.report_lost(reason)
        raise DeviceLostError(reason) from error

    def _shrink(self, rows: int, error: Exception) -> NoReturn:
        self._health.count(Fault.OUT_OF_MEMORY.value)
        smaller = [step for step in self._steps if step <= rows // 2]
        self._limit = min(self._limit, smaller[-1] if smaller else 1)
        self._device.give_back_memory()
        reason = first_line(error)
        logger.error("no device memory for %d rows; batches have at most %d from now on: %s", rows, self._limit, reason)
        raise DeviceOutOfMemoryError(rows=rows, limit=self._limit, reason=reason) from error

    def _record(self) -> None:
        """Record every batch size, the largest first: smaller ones need no more memory than it has allocated."""
        if self._make_inputs is None:
            return
        for step in reversed([step for step in self._steps if step <= self._limit]):
            self._device.run(self._make_inputs(step))  # what kernels allocate once must not be recorded
            inputs = self._make_inputs(step)
            expected = self._device.run(inputs)
            if self._device.record(self._make_inputs(step)) is None:
                return
            _check_replay(expected, self._device.run(inputs), step)


def _agree(expected: NDArray[Any], came: NDArray[Any]) -> bool:
    if expected.dtype.kind != "f":
        return expected.tobytes() == came.tobytes()
    tolerance = _REPLAY_TOLERANCE
    return bool(np.allclose(expected, came, rtol=tolerance, atol=tolerance, equal_nan=True))


def _pad(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Repeat the last row: rows of zeros could be something the model fails on."""
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])


def _check_replay(expected: Arrays, replayed: Arrays, step: int) -> None:
    for name, array in expected.items():
        if not _agree(array, replayed[name]):
            raise RecordingError(
                f"a recorded batch of {step} rows does not answer in output {name!r} as the model does"
            )


def _do_nothing() -> None:
    """A run on a GPU cannot be ended."""
