"""Memory and copies on a device: what ONNX Runtime's Python API leaves to its user.

The copies of that API are synchronous and hold the interpreter's lock. CUDA's runtime, called through ctypes, copies
asynchronously: to begin a copy takes 5 us, for which the calling thread keeps the interpreter's lock. If it released
the lock, it would have to wait until the reading thread releases it in turn, up to a millisecond each time. Only the
wait at the end of a batch releases it.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inferry_server.runtime.device_errors import SUCCESS, CudaCallError

Bytes = NDArray[np.uint8]

_RUNTIME_LIBRARY = "libcudart.so.13"
_STREAM_NON_BLOCKING = 1
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2


class DeviceMemory(Protocol):
    """One stream of a device, with buffers of its own. For one thread at a time.

    Copies and kernels of a stream run in order; `synchronize` waits for all of them.
    """

    device_type: str
    """As ONNX Runtime names it."""
    device_id: int
    stream: int
    """Its handle; 0 where there is none."""

    def activate(self) -> None:
        """The calling thread uses this device from now on."""

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the device."""

    def allocate_host(self, size: int) -> Bytes:
        """So many bytes of host memory that the device can read while others compute."""

    def copy_in(self, address: int, source: Bytes) -> None:
        """Begin to copy to the device. The source must stay as it is until `synchronize`."""

    def copy_out(self, target: Bytes, address: int) -> None:
        """Begin to copy from the device. The target is complete after `synchronize`."""

    def synchronize(self) -> None:
        """Wait for everything that was begun; raises the errors of kernels."""

    def used_bytes(self) -> int:
        """Memory of the device that all processes use."""

    def close(self) -> None:
        """Give back stream and buffers."""


class CudaMemory:
    """A CUDA device: a stream, buffers on it, and pinned host memory.

    Args:
        device_id: as CUDA counts the visible devices.
        load: loads CUDA's runtime, the one that ONNX Runtime uses; its calls release the interpreter's lock.
        load_held: loads it so that its calls keep the interpreter's lock.

    Raises:
        CudaCallError: CUDA refuses; every method may raise it.
    """

    device_type = "cuda"

    def __init__(
        self,
        device_id: int,
        *,
        load: Callable[[str], Any] = ctypes.CDLL,
        load_held: Callable[[str], Any] = ctypes.PyDLL,
    ) -> None:
        self.device_id = device_id
        self._library = load(_RUNTIME_LIBRARY)
        self._held = load_held(_RUNTIME_LIBRARY)
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        self._device_buffers: list[int] = []
        self._host_buffers: list[int] = []
        self.activate()
        self.stream = self._pointer("cudaStreamCreateWithFlags", ctypes.c_uint(_STREAM_NON_BLOCKING))

    def activate(self) -> None:
        """The calling thread uses this device from now on."""
        self._call("cudaSetDevice", ctypes.c_int(self.device_id))

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the device."""
        self.activate()  # the thread may have opened another one since
        address = self._pointer("cudaMalloc", ctypes.c_size_t(size))
        self._device_buffers.append(address)
        return address

    def allocate_host(self, size: int) -> Bytes:
        """Pinned host memory, which `close` takes away again."""
        address = self._pointer("cudaHostAlloc", ctypes.c_size_t(size), ctypes.c_uint(0))
        self._host_buffers.append(address)
        memory: Any = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(memory, np.uint8)

    def copy_in(self, address: int, source: Bytes) -> None:
        """Begin to copy pinned memory to the device."""
        self._copy(address, source.ctypes.data, source.nbytes, _HOST_TO_DEVICE)

    def copy_out(self, target: Bytes, address: int) -> None:
        """Begin to copy from the device to pinned memory."""
        self._copy(target.ctypes.data, address, target.nbytes, _DEVICE_TO_HOST)

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def used_bytes(self) -> int:
        """Memory of the device that all processes use."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return total.value - free.value

    def close(self) -> None:
        """Give back stream and buffers; on a lost device there is nothing to give back."""
        calls = [("cudaFree", address) for address in self._device_buffers]
        calls += [("cudaFreeHost", address) for address in self._host_buffers]
        calls += [("cudaStreamDestroy", self.stream)] if self.stream else []
        self._device_buffers, self._host_buffers, self.stream = [], [], 0
        for name, address in calls:
            self._call(name, ctypes.c_void_p(address))

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        code = self._held.cudaMemcpyAsync(
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(kind),
            ctypes.c_void_p(self.stream),
        )
        self._check("cudaMemcpyAsync", code)

    def _pointer(self, name: str, *arguments: Any) -> int:
        """What a call writes where its first argument points."""
        pointer = ctypes.c_void_p()
        self._call(name, ctypes.byref(pointer), *arguments)
        return pointer.value or 0

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, getattr(self._library, name)(*arguments))

    def _check(self, name: str, code: int) -> None:
        if code != SUCCESS:
            self._library.cudaGetLastError()  # else the next call of any thread reports this error again
            raise CudaCallError(name, code, self._library.cudaGetErrorString(code).decode())


class HostMemory:
    """The CPU, treated as a device: the same steps, for machines without a GPU. Used by tests and checks."""

    device_type = "cpu"
    device_id = 0
    stream = 0

    def __init__(self) -> None:
        self._buffers: dict[int, Bytes] = {}

    def activate(self) -> None:
        """There is nothing to choose."""

    def allocate(self, size: int) -> int:
        """The address of so many bytes that stand for memory of a device."""
        buffer = np.zeros(size, np.uint8)
        self._buffers[buffer.ctypes.data] = buffer
        return buffer.ctypes.data

    def allocate_host(self, size: int) -> Bytes:
        """So many bytes."""
        return np.zeros(size, np.uint8)

    def copy_in(self, address: int, source: Bytes) -> None:
        """Copy to the device's side."""
        self._buffers[address][: source.nbytes] = source

    def copy_out(self, target: Bytes, address: int) -> None:
        """Copy from the device's side."""
        target[:] = self._buffers[address][: target.nbytes]

    def synchronize(self) -> None:
        """Nothing: copies here are synchronous."""

    def used_bytes(self) -> int:
        """Bytes of its buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def close(self) -> None:
        """Give back the buffers."""
        self._buffers.clear()
