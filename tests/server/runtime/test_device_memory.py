"""CUDA's runtime is called as its headers say, through a library that stands in for it."""

import ctypes
from typing import Any

import numpy as np
import pytest

from inferry_server.runtime.device_errors import CudaCallError
from inferry_server.runtime.device_memory import CudaMemory, HostMemory

STREAM = 0x5EED


class _ErrorString:
    """A function with a result type, as ctypes' functions have."""

    restype: Any = None

    def __call__(self, code: int) -> bytes:
        assert self.restype is ctypes.c_char_p
        return b"out of memory"


class FakeRuntime:
    """libcudart: memory is the host's, and every argument is of the type that the C function takes."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.buffers: dict[int, Any] = {}
        self.fail: dict[str, int] = {}
        self.cudaGetErrorString = _ErrorString()

    def note(self, name: str) -> int:
        self.calls.append(name)
        return self.fail.get(name, 0)

    def make(self, name: str, pointer: Any, size: ctypes.c_size_t) -> int:
        if code := self.note(name):
            return code
        buffer = (ctypes.c_uint8 * size.value)()
        self.buffers[ctypes.addressof(buffer)] = buffer
        pointer._obj.value = ctypes.addressof(buffer)
        return 0

    def drop(self, name: str, address: ctypes.c_void_p) -> int:
        del self.buffers[address.value or 0]
        return self.note(name)

    def __getattr__(self, name: str) -> Any:
        known = {
            "cudaSetDevice": lambda device: self.note(f"{name} {device.value}"),
            "cudaStreamCreateWithFlags": self.create_stream,
            "cudaMalloc": lambda pointer, size: self.make(name, pointer, size),
            "cudaHostAlloc": lambda pointer, size, _flags: self.make(name, pointer, size),
            "cudaMemcpyAsync": self.copy,
            "cudaStreamSynchronize": lambda stream: self.note(f"{name} {stream.value}"),
            "cudaMemGetInfo": self.info,
            "cudaFree": lambda address: self.drop(name, address),
            "cudaFreeHost": lambda address: self.drop(name, address),
            "cudaStreamDestroy": lambda stream: self.note(f"{name} {stream.value}"),
            "cudaGetLastError": lambda: self.note(name),
        }
        return known[name]

    def create_stream(self, pointer: Any, flags: ctypes.c_uint) -> int:
        assert flags.value == 1
        pointer._obj.value = STREAM
        return self.note("cudaStreamCreateWithFlags")

    def copy(self, target: Any, source: Any, size: ctypes.c_size_t, kind: ctypes.c_int, stream: Any) -> int:
        assert stream.value == STREAM
        ctypes.memmove(target.value, source.value, size.value)
        return self.note(f"cudaMemcpyAsync {kind.value}")

    def info(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = 3, 10
        return 0


def test_bytes_go_in_and_out_on_the_stream_and_all_is_given_back() -> None:
    library = FakeRuntime()
    memory = CudaMemory(1, load=lambda _: library, load_held=lambda _: library)
    assert memory.stream == STREAM
    address, host = memory.allocate(8), memory.allocate_host(8)
    host[:] = np.arange(8)
    memory.copy_in(address, host[:4])
    host[:] = 0
    memory.copy_out(host[:4], address)
    memory.synchronize()
    assert host.tolist() == [0, 1, 2, 3, 0, 0, 0, 0]
    assert memory.used_bytes() == 7
    memory.close()
    memory.close()
    assert not library.buffers
    assert library.calls == [
        "cudaSetDevice 1", "cudaStreamCreateWithFlags", "cudaSetDevice 1", "cudaMalloc", "cudaHostAlloc",
        "cudaMemcpyAsync 1", "cudaMemcpyAsync 2", f"cudaStreamSynchronize {STREAM}", "cudaFree", "cudaFreeHost",
        f"cudaStreamDestroy {STREAM}",
    ]  # fmt: skip


def test_an_error_has_its_code_and_does_not_stay_for_the_next_call() -> None:
    library = FakeRuntime()
    library.fail["cudaMalloc"] = 2
    memory = CudaMemory(0, load=lambda _: library, load_held=lambda _: library)
    with pytest.raises(CudaCallError, match="cudaMalloc: CUDA error 2: out of memory") as caught:
        memory.allocate(1 << 40)
    assert caught.value.code == 2
    assert library.calls[-1] == "cudaGetLastError"
    memory.close()


def test_only_what_waits_gives_the_interpreters_lock_away() -> None:
    waiting, held = FakeRuntime(), FakeRuntime()
    memory = CudaMemory(0, load=lambda _: waiting, load_held=lambda _: held)
    address, host = memory.allocate(4), memory.allocate_host(4)
    memory.copy_in(address, host)
    memory.copy_out(host, address)
    memory.synchronize()
    assert held.calls == ["cudaMemcpyAsync 1", "cudaMemcpyAsync 2"]
    assert waiting.calls[-1] == f"cudaStreamSynchronize {STREAM}"
    held.fail["cudaMemcpyAsync 1"] = 700
    with pytest.raises(CudaCallError, match="cudaMemcpyAsync: CUDA error 700"):
        memory.copy_in(address, host)
    memory.close()


def test_the_cpu_as_a_device_keeps_both_sides_apart() -> None:
    memory = HostMemory()
    address, host = memory.allocate(4), memory.allocate_host(4)
    host[:] = 7
    memory.copy_in(address, host)
    host[:] = 0
    assert not host.any()
    memory.copy_out(host, address)
    assert host.tolist() == [7] * 4
